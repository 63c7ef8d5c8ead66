"""A student's own translations of what it is trained on, from which the prefixes come that it meets when it decodes.

The expert is asked what it would say next after these (Lin et al. 2020, algorithm 1).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_knn.undisturbed import undisturbed

_KEEP = 0.75  # where fewer rows than this share of those in work are unfinished, the others are taken out of the batch


@torch.no_grad()
def roll_out(
    model: nn.Module,
    net_input: Mapping[str, Any],
    limits: Tensor,
    *,
    eos: int,
    pad: int,
    forced: Tensor | None = None,
    top_k: int = 0,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Decode greedily, or by sampling among the likeliest, as fairseq's search does: no padding, and at first no end.

    The model is in evaluation mode meanwhile, and afterwards as it was; global random generators are not used.

    Args:
        model: with ``encoder`` and ``decoder``, not wrapped for distributed training.
        net_input: what the encoder is fed with; ``prev_output_tokens`` is not looked at.
        limits: the greatest number of tokens of each hypothesis, the end not counted, int64 (B,); 0 leaves it empty.
        eos: symbol that begins prefixes and ends hypotheses.
        pad: symbol of padding.
        forced: first tokens of each hypothesis (tags of languages), int64 (B, p), or ``None``.
        top_k: sample among so many of the likeliest tokens, with their probabilities made to sum to one; 0 takes the
            likeliest.
        generator: for sampling, on the model's device.

    Returns:
        For each row the tokens it produced, int64 (t,), with the end where it came to one.
    """
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    source = {name: value for name, value in net_input.items() if name != "prev_output_tokens"}
    count, device = limits.size(0), limits.device
    longest = int(limits.max()) if count else 0
    if not longest:
        return [limits.new_empty(0) for _ in range(count)]
    tokens = limits.new_full((count, longest + 1), pad)
    tokens[:, 0] = eos
    lengths = limits.clone()  # the limit, unless it ends before
    finished = limits.eq(0)
    active = torch.arange(count, device=device)  # rows in work; a finished one may be among them for a while
    state: dict[str, Any] = {}
    with undisturbed(model):
        encoded = encoder(**source)
        for step in range(longest):
            logits = decoder(tokens[active, : step + 1], encoder_out=encoded, incremental_state=state)[0][:, -1].float()
            if forced is not None and step < forced.size(1):
                chosen = forced[active, step]
            else:
                logits[:, pad] = -torch.inf
                if step == 0:
                    logits[:, eos] = -torch.inf
                chosen = _choose(logits, top_k, generator)
            tokens[active, step + 1] = chosen
            ended = active[chosen.eq(eos) & ~finished[active]]
            lengths[ended] = step + 1
            finished[ended] = True
            finished |= limits.le(step + 1)
            kept = (~finished[active]).nonzero().squeeze(1)
            if not len(kept):
                break
            if len(kept) < _KEEP * len(active):
                active = active[kept]
                encoded = encoder.reorder_encoder_out(encoded, kept)
                decoder.reorder_incremental_state_scripting(state, kept)
    return [tokens[row, 1 : int(length) + 1] for row, length in enumerate(lengths.tolist())]


def _choose(logits: Tensor, top_k: int, generator: torch.Generator | None) -> Tensor:
    if not top_k:
        return logits.argmax(dim=-1)
    best, which = logits.topk(min(top_k, logits.size(-1)), dim=-1)
    drawn = torch.multinomial(best.softmax(dim=-1), 1, generator=generator)
    return which.gather(1, drawn).squeeze(1)
