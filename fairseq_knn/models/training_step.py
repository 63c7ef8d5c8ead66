"""What a combiner in training is told about a batch, beside the batch."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fairseq_knn.combiners.narrowed import NarrowedLogProbs
from fairseq_knn.errors import DatastoreError
from fairseq_knn.retrieval import Neighbours


@dataclass(frozen=True)
class CachedPositions:
    """What base model and search gave for the n positions of a batch that are not padding, row by row.

    Args:
        query: hidden states, (n, d).
        neighbours: with columns of *narrowed* as values, (n, k).
        narrowed: the model's log-probabilities.
    """

    query: Tensor
    neighbours: Neighbours
    narrowed: NarrowedLogProbs


@dataclass(frozen=True)
class TrainingStep:
    """A batch of combiner training or its validation.

    Args:
        target: int64 (B, T).
        own: the entry that each position itself is in the datastore, which must not be among its neighbours: int64
            (B, T), -1 where there is none; ``None`` if there are none at all.
        update: number of updates so far.
        cached: everything that was retrieved before, in the place of base model and search.
        measured: sums of figures, filled as the batch is processed.
    """

    target: Tensor
    own: Tensor | None
    update: int
    cached: CachedPositions | None = None
    measured: dict[str, Any] = field(default_factory=dict)


def check_retrieval(query: Tensor, neighbours: Neighbours) -> None:
    """Make sure that there is something to learn from a batch: a distance that is not a number finds nothing.

    Args:
        query: hidden states, (..., d).
        neighbours: that were found, (..., k).

    Raises:
        DatastoreError: hidden states or keys are not numbers.
    """
    if not query.isfinite().all():
        raise DatastoreError(
            "hidden states of the model are not numbers, so they have no distance to the datastore's keys: they "
            "overflow in half precision (leave out --fp16), or the checkpoint of the base is damaged"
        )
    if not neighbours.found.any():
        raise DatastoreError(
            "no neighbour was found for a whole batch, so the datastore's keys are not numbers or its index is "
            "damaged: `fairseq-knn verify` tells which"
        )
