"""Actors that score sentence pairs: how much it helps to train on them. One file and one line for each."""

from collections.abc import Callable

import torch

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors.ave_emb import AveEmbActor
from fairseq_knn.sampling.instance_actors.base import InstanceActor
from fairseq_knn.sampling.instance_actors.settings import InstanceActorSettings
from fairseq_knn.sampling.instance_actors.transformer import TransformerActor

INSTANCE_ACTORS: dict[str, Callable[[InstanceActorSettings], InstanceActor]] = {
    "ave_emb": AveEmbActor,
    "transformer": TransformerActor,
}


def make_instance_actor(kind: str, settings: InstanceActorSettings) -> InstanceActor:
    """Make an untrained actor, on the CPU; it draws nothing from torch's own generators.

    Args:
        kind: a name in :data:`INSTANCE_ACTORS`.
        settings: its sizes, and what it starts from.

    Raises:
        ConfigurationError: there is no such actor, or it cannot be made of these settings.
    """
    if kind not in INSTANCE_ACTORS:
        raise ConfigurationError(
            f"--data-actor is {kind!r}, but the actors that score sentences are {', '.join(INSTANCE_ACTORS)}: choose "
            "one of them"
        )
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of GPUs too, which are not put back.
        torch.default_generator.manual_seed(settings.seed)
        return INSTANCE_ACTORS[kind](settings)


__all__ = [
    "INSTANCE_ACTORS",
    "AveEmbActor",
    "InstanceActor",
    "InstanceActorSettings",
    "TransformerActor",
    "make_instance_actor",
]
