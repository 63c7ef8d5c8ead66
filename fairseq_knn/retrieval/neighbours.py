"""What a search finds."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Neighbours:
    """The k nearest entries of every query, nearest first.

    Args:
        distances: squared Euclidean distances, float32 (..., k); +inf where there is no neighbour.
        ids: entry numbers, int64 (..., k); -1 where there is no neighbour.
        values: target tokens, int64 (..., k); 0 where there is no neighbour.
        keys: the neighbours' keys, (..., k, d), for combiners that need them; anything where there is no neighbour.
        key_log_probs: log-probability that the model gives the neighbour's token in its own place, float32 (..., k),
            for combiners that need it.
    """

    distances: Tensor
    ids: Tensor
    values: Tensor
    keys: Tensor | None = None
    key_log_probs: Tensor | None = None

    @property
    def found(self) -> Tensor:
        """Which neighbours exist, bool (..., k)."""
        return self.ids >= 0

    def select(self, rows: Tensor) -> "Neighbours":
        """Those of some queries: *rows* indexes the flattened leading dimensions (any shape)."""
        k = self.ids.size(-1)
        return Neighbours(*(t.reshape(-1, k)[rows] for t in (self.distances, self.ids, self.values)))

    @staticmethod
    def none(shape: tuple[int, ...], k: int, device: torch.device) -> "Neighbours":
        """No neighbours for queries of the given leading shape."""
        return Neighbours(
            torch.full((*shape, k), torch.inf, device=device),
            torch.full((*shape, k), -1, dtype=torch.int64, device=device),
            torch.zeros((*shape, k), dtype=torch.int64, device=device),
        )
