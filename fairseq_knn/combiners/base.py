"""What every combiner does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fairseq_knn.retrieval.neighbours import Neighbours


@dataclass(frozen=True)
class Mixture:
    """How much every neighbour, and the model itself, counts.

    Args:
        log_weights: log of the neighbours' weights, float32 (..., k); they sum to one over existing
            neighbours and are -inf for missing ones.
        weight: weight of the neighbours' distribution against the model's (the papers' lambda), float32
            (..., 1) in [0, 1]; 0 for a query without neighbours.
        measured: what else was learned and is worth showing, by name, each (..., 1) without gradient; of no meaning
            for a query without neighbours. ``temperature``: what the distances are divided by; ``bandwidth``: that of
            KSTER's kernel.
    """

    log_weights: Tensor
    weight: Tensor
    measured: dict[str, Tensor] = field(default_factory=dict)


class Combiner(ABC):
    """Turns retrieved neighbours into a :class:`Mixture`.

    Attributes:
        kind: its name in :data:`~fairseq_knn.combiners.COMBINERS`.
        max_k: the number of neighbours it was made for; ``None`` for any.
        usual_k: the number of neighbours it was trained with, which others may replace; ``None`` for any.
        query_dim: the dimension of queries and keys it was made for; ``None`` for any.
        needs_keys: whether :attr:`Neighbours.keys <fairseq_knn.retrieval.Neighbours>` is used.
        needs_key_log_probs: whether :attr:`Neighbours.key_log_probs <fairseq_knn.retrieval.Neighbours>` is used.
        needs_keys_to_train: whether the keys are used while it is trained, even if not afterwards.
        top: how many of the model's highest log-probabilities are looked at.
    """

    kind: ClassVar[str]
    max_k: int | None = None
    usual_k: int | None = None
    query_dim: int | None = None
    needs_keys: ClassVar[bool] = False
    needs_key_log_probs: ClassVar[bool] = False
    needs_keys_to_train: ClassVar[bool] = False
    top: int = 0

    @abstractmethod
    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        """Weigh the neighbours.

        Args:
            query: hidden states, (..., d).
            neighbours: of these queries, (..., k).
            log_probs: the model's own log-probabilities, float32 (..., V).
        """

    @property
    def ignores_neighbours(self) -> bool:
        """Whether the neighbours' weight is zero whatever is retrieved, so that no search is needed."""
        return False
