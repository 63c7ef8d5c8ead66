"""One forward of a model: what it was given, and what it gave."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

IGNORED = -100  # label of positions that count for nothing
_CACHES = ("cache", "past_key_values")  # one after the other, transformers called it so
# What transformers' own loss takes from a call.
_OF_THE_LOSS = ("num_items_in_batch", "shift_labels")


@dataclass(frozen=True)
class Call:
    """A forward that has ended.

    Args:
        model: that ran.
        given: its arguments by name.
        output: what it returned: a ``ModelOutput``, or a tuple.
    """

    model: Any
    given: Mapping[str, Any]
    output: Any

    @classmethod
    def of(cls, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> "Call":
        """From what a forward hook is told."""
        names = list(inspect.signature(model.forward).parameters)
        return cls(model, {**dict(zip(names, args, strict=False)), **kwargs}, output)

    @property
    def logits(self) -> Tensor:
        """(B, n, V): of all positions, or of the last n."""
        logits: Tensor = self.output[self._place] if isinstance(self.output, tuple) else self.output.logits
        return logits

    @property
    def _place(self) -> int:
        """Where the logits are in a tuple."""
        return 0 if self.labels is None else 1

    @property
    def labels(self) -> Tensor | None:
        """As given, int64 (B, T), or ``None``."""
        labels: Tensor | None = self.given.get("labels")
        return labels

    @property
    def following(self) -> Tensor | None:
        """The label of what follows every position, int64 (B, T), -100 where there is none; ``None`` without labels.

        A causal model predicts with a position the label of the next.
        """
        labels = self.labels
        if labels is None or self.model.config.is_encoder_decoder:
            return labels
        return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)

    @property
    def tokens(self) -> Tensor | None:
        """Tokens that the (decoder's) positions were given, int64 (B, T), if they were given as tokens."""
        name = "decoder_input_ids" if self.model.config.is_encoder_decoder else "input_ids"
        tokens: Tensor | None = self.given.get(name)
        return tokens

    @property
    def kept(self) -> int:
        """For how many last positions logits were asked for; 0 for all.

        Raises:
            ConfigurationError: for others than the last.
        """
        kept = self.given.get("logits_to_keep", 0)
        if not isinstance(kept, int):
            raise ConfigurationError(
                "logits_to_keep is a tensor of positions, but neighbours are found for all positions or for the last: "
                "pass a number, or break_out() first"
            )
        return kept

    @property
    def cache(self) -> Any:
        """The cache of attention states after this forward; ``None`` if none is kept."""
        if isinstance(self.output, tuple):
            return self.given_cache
        return next((each for name in _CACHES if (each := getattr(self.output, name, None)) is not None), None)

    @property
    def given_cache(self) -> Any:
        """The cache that was passed in; ``None`` where a sequence begins."""
        return next((each for name in _CACHES if (each := self.given.get(name)) is not None), None)

    def loss(self, logits: Tensor) -> Tensor:
        """The loss the model's own forward computes of *logits* (B, T, V), without what else it may add."""
        assert self.labels is not None
        vocabulary = logits.size(-1)
        labels = self.labels.to(logits.device)
        loss: Tensor
        if self.model.config.is_encoder_decoder:
            loss = nn.functional.cross_entropy(logits.reshape(-1, vocabulary), labels.reshape(-1))
        else:
            further = {name: self.given[name] for name in _OF_THE_LOSS if name in self.given}
            loss = self.model.loss_function(logits, labels, vocab_size=vocabulary, **further)
        return loss

    def with_logits(self, logits: Tensor, loss: Tensor | None) -> Any:
        """The output with other logits and, if it has one, another loss."""
        if isinstance(self.output, tuple):
            changed = list(self.output)
            changed[self._place] = logits
            if loss is not None:
                changed[0] = loss
            return tuple(changed)
        self.output.logits = logits
        if loss is not None:
            self.output.loss = loss
        return self.output

    @property
    def own_loss(self) -> Tensor | None:
        """What the forward returned."""
        if self.labels is None:
            return None
        loss: Tensor | None = self.output[0] if isinstance(self.output, tuple) else self.output.loss
        return loss


def wanted_positions(call: Call) -> Tensor:
    """Positions whose logits are to be those of model and neighbours, bool (B, n).

    With labels those that have one; else those that logits were asked for (``logits_to_keep``), or the last.
    """
    logits, following = call.logits, call.following
    if following is not None:
        if following.shape != logits.shape[:2]:
            raise ConfigurationError(
                f"there are labels of {tuple(following.shape)} positions, but logits of {tuple(logits.shape[:2])}: "
                "leave out logits_to_keep"
            )
        return (following != IGNORED).to(logits.device)
    wanted = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    wanted[:, -max(1, call.kept) :] = True
    return wanted
