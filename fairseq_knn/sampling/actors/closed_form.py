"""Actors that need no optimiser: a formula gives the next distribution."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fairseq_knn.sampling.actors.language_actor import ActorSettings, LanguageActor, log_tensor


class ClosedFormActor(LanguageActor):
    """Nothing but the logarithms of P."""

    def __init__(self, initial: np.ndarray, settings: ActorSettings) -> None:
        super().__init__(initial, settings)
        self._log_probs = log_tensor(initial)

    def _logits(self) -> Tensor:
        return self._log_probs

    def _state(self) -> dict[str, Any]:
        return {"log_probs": self._log_probs.clone()}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._log_probs = state["log_probs"].clone()


class RewardSoftmaxActor(ClosedFormActor):
    """``P ~ exp(R)``: what was before the round is forgotten."""

    kind = "only_grad"

    def _learn(self, rewards: Tensor, similarity: Tensor) -> None:
        self._log_probs = rewards.log_softmax(dim=0)


class ExponentiatedGradientActor(ClosedFormActor):
    """``P ~ P exp(lr R)``: exponentiated gradient (Kivinen and Warmuth 1997) on the expected reward."""

    kind = "interpolate_grad"

    def _learn(self, rewards: Tensor, similarity: Tensor) -> None:
        self._log_probs = (self._log_probs + self.settings.lr * rewards).log_softmax(dim=0)
