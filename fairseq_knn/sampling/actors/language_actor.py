"""What all actors have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.distribution import softmax


@dataclass(frozen=True, eq=False)
class ActorSettings:
    """What can be chosen; an actor looks at what concerns it.

    Args:
        lr: step size, above 0: of Adam, or of the exponentiated gradient.
        optim_steps: steps of Adam per round.
        scale_reward: whether the loss is the expected reward rather than a cross-entropy.
        embed_dim: width of the network over language embeddings.
        lan_embed_dim: dimension of the learned language embeddings; ``None``: as ``embed_dim``.
        embeddings: fixed vectors of the languages, which stand beside the learned ones, (n, e).
        seed: of what is drawn at the beginning.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    lr: float = 1e-4
    optim_steps: int = 200
    scale_reward: bool = False
    embed_dim: int = 32
    lan_embed_dim: int | None = None
    embeddings: Tensor | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ConfigurationError(
                f"the learning rate of the actor is {self.lr}, but it is the size of a step: choose a finite "
                "--data-actor-lr above 0"
            )
        for flag, value in (
            ("--data-actor-optim-step", self.optim_steps),
            ("--data-actor-embed-dim", self.embed_dim),
            ("--lan-embed-dim", self.lan_embed_dim),
        ):
            if value is not None and value < 1:
                raise ConfigurationError(f"{flag} is {value}, but the actor needs at least 1: choose a larger one")


class LanguageActor(ABC):
    """A distribution P over n training languages that learns from their rewards.

    It computes in float64 on the CPU: what is so small costs nothing, and P is the same in every process that was
    given the same rewards.

    Args:
        initial: P before the first round, float64 (n,), above 0, sums to 1.
        settings: what concerns this actor is looked at.
    """

    kind: ClassVar[str]
    scales_rewards: ClassVar[bool] = False  # whether `scale_reward` means something to it
    has_embeddings: ClassVar[bool] = False  # whether fixed `embeddings` do

    def __init__(self, initial: np.ndarray, settings: ActorSettings) -> None:
        if not (initial.ndim == 1 and (initial > 0).all() and np.isclose(initial.sum(), 1)):
            raise ValueError(f"no distribution with probabilities above 0: {initial}")
        self.languages = len(initial)
        self.settings = settings

    @property
    def probabilities(self) -> np.ndarray:
        """P, float64 (n,), above 0, sums to 1."""
        return softmax(self._logits().detach().numpy())

    def check_development(self, languages: int) -> None:  # noqa: B027  # most can do with any number
        """Tell before training whether the actor can learn from so many development languages.

        Raises:
            ConfigurationError: it cannot.
        """

    def update(self, rewards: Tensor, similarity: Tensor) -> None:
        """Learn from one round.

        Args:
            rewards: of the training languages, float64 (n,).
            similarity: what they were computed from: of the gradients of every development language and every
                training language, float64 (K, n).

        Raises:
            ConfigurationError: as :meth:`check_development`.
            ValueError: a number is not finite, or of another number of languages; P is then what it was.
        """
        if rewards.shape != (self.languages,) or similarity.dim() != 2 or similarity.shape[1] != self.languages:
            raise ValueError(
                f"rewards {tuple(rewards.shape)} and similarities {tuple(similarity.shape)}, but there are "
                f"{self.languages} languages"
            )
        if not (rewards.isfinite().all() and similarity.isfinite().all()):
            raise ValueError(f"rewards that are not finite: {rewards.tolist()} from {similarity.tolist()}")
        self.check_development(len(similarity))
        self._learn(rewards.detach().double().cpu(), similarity.detach().double().cpu())

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that was learned, the optimiser's state included: tensors and plain Python."""
        return {"kind": self.kind, "languages": self.languages, **self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ConfigurationError: it is the state of another kind of actor, or over other languages.
        """
        if (state["kind"], state["languages"]) != (self.kind, self.languages):
            raise ConfigurationError(
                f"the checkpoint holds an actor {state['kind']!r} over {state['languages']} languages, but "
                f"{self.kind!r} over {self.languages} was asked for: give --data-actor and --lang-pairs as before, or "
                "start without this checkpoint"
            )
        self._load_state(state)

    @abstractmethod
    def _logits(self) -> Tensor:
        """Logarithms of P, up to a constant, float64 (n,)."""

    @abstractmethod
    def _learn(self, rewards: Tensor, similarity: Tensor) -> None:
        """What :meth:`update` does with finite float64 numbers."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What the kind of actor adds to the state; shares no memory with the actor."""

    @abstractmethod
    def _load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`_state` returned, sharing no memory with it."""


def log_tensor(probabilities: np.ndarray) -> Tensor:
    """The logits whose softmax is exactly *probabilities*: an actor starts there, and is fitted to nothing first."""
    return torch.from_numpy(np.log(probabilities.astype(np.float64)))
