"""Parts of what a model is fed with, and several of these as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

NetInput = Mapping[str, Any]


def rows_of(net_input: NetInput, rows: Tensor, pad: int) -> dict[str, Any]:
    """Some rows of a batch, whose sources are no longer than the longest of them.

    Args:
        net_input: tensors of B rows, other things (which are kept), and ``src_tokens`` and ``src_lengths`` among them.
            Audio is padded on the right, tokens on either side.
        rows: int64 (n,).
        pad: symbol of padding, where sources are tokens.
    """
    count = len(net_input["src_lengths"])
    chosen = {
        name: value[rows] if isinstance(value, Tensor) and value.dim() and len(value) == count else value
        for name, value in net_input.items()
    }
    if len(rows):
        # Recurrent encoders refuse columns of padding alone.
        chosen["src_tokens"] = _shortened(chosen["src_tokens"], int(chosen["src_lengths"].max()), pad)
    return chosen


def _shortened(source: Tensor, width: int, pad: int) -> Tensor:
    surplus = source.size(1) - width
    if surplus <= 0:
        return source
    left = not source.is_floating_point() and bool(source[:, :surplus].eq(pad).all())
    return source[:, surplus:] if left else source[:, :width]


def joined(net_inputs: Sequence[NetInput], pad: int) -> tuple[dict[str, Any], Tensor]:
    """The sources of several batches as one batch, longest first, as speech encoders want it.

    Args:
        net_inputs: with ``src_tokens``: frames (B, S, ...), padded with zeros on the right, or tokens (B, S), padded on
            the side they are padded on; and ``src_lengths`` (B,).
        pad: symbol of padding.

    Returns:
        ``src_tokens`` and ``src_lengths``, and for each row of the batches, one after another, its row in them.
    """
    lengths = torch.cat([each["src_lengths"] for each in net_inputs])
    sources = [each["src_tokens"] for each in net_inputs]
    width = max(source.size(1) for source in sources)
    audio = sources[0].is_floating_point()
    left = not audio and any(bool(source[:, 0].eq(pad).any()) for source in sources)
    tokens = sources[0].new_full((len(lengths), width, *sources[0].shape[2:]), 0 if audio else pad)
    first = 0
    for source in sources:
        columns = slice(width - source.size(1), width) if left else slice(source.size(1))
        tokens[first : first + len(source), columns] = source
        first += len(source)
    order = lengths.argsort(descending=True, stable=True)
    return {"src_tokens": tokens[order], "src_lengths": lengths[order]}, order.argsort()
