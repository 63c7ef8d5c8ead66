"""What a combiner in training is told about a batch, beside the batch."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fairseq_knn.combiners.narrowed import NarrowedLogProbs
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
