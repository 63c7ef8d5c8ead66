"""What a datastore has to know of a model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """What tells one model from another.

    Args:
        fingerprint: of its parameters.
        name: of its class.
        kind: what it does, one of a plan's kinds.
        vocabulary: fingerprint of the vocabulary of what it predicts.
        vocabulary_size: number of ids it predicts.
    """

    fingerprint: str
    name: str
    kind: str
    vocabulary: str
    vocabulary_size: int
