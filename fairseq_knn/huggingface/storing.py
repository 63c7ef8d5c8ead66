"""Storing what a model of transformers computes under its labels."""

from typing import Any

import torch
from torch import Tensor

from fairseq_knn.datastore.sequences import SequenceWriter
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.call import IGNORED, Call
from fairseq_knn.huggingface.forward_hook import ForwardHook

_SCORED_NUMBERS = 1 << 26  # log-probabilities that are computed at a time: 256 MiB


class StoringModel(ForwardHook):
    """Every forward with labels adds its sequences to a datastore, until it is removed.

    Args:
        model: of transformers.
        key: hidden state that is the key, one of ``layers.KEY_KINDS``.

    Attributes:
        writer: of the datastore; given before the first forward.

    Raises:
        ConfigurationError: see :class:`~fairseq_knn.huggingface.forward_hook.ForwardHook`.
    """

    def __init__(self, model: Any, key: str) -> None:
        super().__init__(model, key)
        self.writer: SequenceWriter | None = None

    def after(self, call: Call, states: Tensor) -> Any:
        following = call.following
        if following is None:
            raise ConfigurationError(
                "a datastore is made of labels, and this forward has none: pass labels=..., and break_out() before "
                "generate()"
            )
        if following.shape != states.shape[:2]:
            raise ConfigurationError(
                f"there are labels of {tuple(following.shape)} positions, but hidden states of "
                f"{tuple(states.shape[:2])}: leave out logits_to_keep"
            )
        following = following.to(states.device)
        wanted = following != IGNORED
        assert self.writer is not None
        self.writer.add(
            wanted.sum(dim=1).tolist(),
            states[wanted].to(torch.float16).cpu().numpy(),
            following[wanted].cpu().numpy(),
            _log_probs(call.logits, following, wanted).cpu().numpy(),
        )
        return call.output


def _log_probs(logits: Tensor, following: Tensor, wanted: Tensor) -> Tensor:
    """The model's log-probability of every wanted label, float32 (m,)."""
    rows = wanted.reshape(-1).nonzero().squeeze(-1)
    flat, targets = logits.detach().reshape(-1, logits.size(-1)), following.reshape(-1)
    parts = []
    for part in torch.split(rows, max(1, _SCORED_NUMBERS // flat.size(-1))):
        scores = flat[part].float()
        parts.append(scores.gather(-1, targets[part].unsqueeze(-1)).squeeze(-1) - scores.logsumexp(dim=-1))
    return torch.cat(parts) if parts else flat.new_zeros(0, dtype=torch.float32)
