"""What student and expert are asked to continue: references, or what the student decoded."""

from collections.abc import Mapping

import torch
from torch import Tensor


def context_of(hypothesis: Tensor, eos: int) -> Tensor:
    """A hypothesis as decoder input: it begins with EOS and ends before the EOS that is still to be predicted.

    A hypothesis that was cut off for its length has no EOS, so none of its tokens is left out.

    Args:
        hypothesis: tokens that were decoded, int64 (t,).
        eos: id of the end of a sentence.

    Returns:
        int64 (t,), or (t + 1,) without an EOS at the end.
    """
    ended = len(hypothesis) > 0 and int(hypothesis[-1]) == eos
    return torch.cat([hypothesis.new_full((1,), eos), hypothesis[:-1] if ended else hypothesis])


def contexts(reference: Tensor, hypotheses: Mapping[int, Tensor], pad: int, eos: int) -> Tensor:
    """Decoder input of a batch: the student's translations of some rows, the references of the others.

    Args:
        reference: decoder input that belongs to the references, padded on the right, int64 (B, T).
        hypotheses: what was decoded for some rows, int64 (t,) each.
        pad: id of the padding.
        eos: id of the end of a sentence.

    Returns:
        int64 (B, T'), padded on the right, T' the length of its longest row.
    """
    own = {row: context_of(hypothesis, eos) for row, hypothesis in hypotheses.items()}
    kept = reference.ne(pad)
    if own:
        kept[list(own)] = False
    # Padded on the right: as many columns have a token as the longest row is long.
    width = max([int(kept.any(dim=0).sum()), *map(len, own.values())])
    result = reference.new_full((len(reference), width), pad)
    shared = min(width, reference.size(1))
    result[:, :shared] = reference[:, :shared].where(kept[:, :shared], pad)
    for row, context in own.items():
        result[row, : len(context)] = context
    return result


def counted(prefixes: Tensor, pad: int, ignore_prefix: int = 0) -> Tensor:
    """Positions of which the loss is made: those whose input is a token, so that EOS is predicted once.

    Args:
        prefixes: decoder input, padded on the right, int64 (B, T).
        pad: id of the padding.
        ignore_prefix: how many positions at the beginning of each row are left out.

    Returns:
        bool (B, T).
    """
    mask = prefixes.ne(pad)
    mask[:, :ignore_prefix] = False
    return mask
