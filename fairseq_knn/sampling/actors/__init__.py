"""Distributions over training languages that learn from rewards.

An actor is one small class and one line in :data:`LANGUAGE_ACTORS`.
"""

import numpy as np

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors.closed_form import ExponentiatedGradientActor, RewardSoftmaxActor
from fairseq_knn.sampling.actors.embedding import EmbeddingActor
from fairseq_knn.sampling.actors.free_logits import FreeLogitsActor
from fairseq_knn.sampling.actors.language_actor import ActorSettings, LanguageActor
from fairseq_knn.sampling.actors.pairwise import PairwiseActor

LANGUAGE_ACTORS: dict[str, type[LanguageActor]] = {
    "base": FreeLogitsActor,
    "base_weight": PairwiseActor,
    "lan": EmbeddingActor,
    "only_grad": RewardSoftmaxActor,
    "interpolate_grad": ExponentiatedGradientActor,
}


def make_actor(kind: str, initial: np.ndarray, settings: ActorSettings) -> LanguageActor:
    """A new actor.

    Args:
        kind: its name in :data:`LANGUAGE_ACTORS`.
        initial: the distribution it starts at, float64 (n,), above 0, sums to 1.
        settings: its own.

    Raises:
        ConfigurationError: there is no such actor, or the settings do not suit it.
    """
    if kind not in LANGUAGE_ACTORS:
        raise ConfigurationError(
            f"the actor is {kind!r}, but it must be one of {', '.join(LANGUAGE_ACTORS)}: correct --data-actor"
        )
    actor = LANGUAGE_ACTORS[kind]
    if settings.scale_reward and not actor.scales_rewards:
        raise ConfigurationError(
            f"--scale-reward weighs the terms of a loss that the actor {kind!r} does not have: leave it out, or choose "
            f"--data-actor {_having('scales_rewards')}"
        )
    if settings.embeddings is not None and not actor.has_embeddings:
        raise ConfigurationError(
            f"--embedding-file describes the languages, but the actor {kind!r} knows them by number alone: leave it "
            f"out, or choose --data-actor {_having('has_embeddings')}"
        )
    return actor(initial, settings)


def _having(ability: str) -> str:
    return " or ".join(kind for kind, actor in LANGUAGE_ACTORS.items() if getattr(actor, ability))


__all__ = [
    "LANGUAGE_ACTORS",
    "ActorSettings",
    "EmbeddingActor",
    "ExponentiatedGradientActor",
    "FreeLogitsActor",
    "LanguageActor",
    "PairwiseActor",
    "RewardSoftmaxActor",
    "make_actor",
]
