"""What a search finds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Neighbours:
    """The k nearest entries of every query, nearest first.

    Args:
        distances: squared Euclidean distances, float32 (..., k); +inf where there is no neighbour.
        ids: entry numbers, int64 (..., k); -1 where there is no neighbour.
        values: target tokens, int64 (..., k); 0 where there is no neighbour.
        keys: the neighbours' keys, (..., k, d), for combiners that need them; anything where there is no neighbour.
        key_log_probs: log-probability that the model gives the neighbour's token in its own place, float32 (..., k),
            for combiners that need it; 0 where there is no neighbour.
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

    def without(self, entries: Tensor) -> "Neighbours":
        """All but one entry of every row, and then the nearest k - 1 of a row (keys and key_log_probs are left out).

        Args:
            entries: ids of what is not wanted, int64 (...); -1, or that of no neighbour, takes out the last.
        """
        k = self.ids.size(-1)
        unwanted = (self.ids == entries.unsqueeze(-1)) & self.found
        # From the unwanted one on, every place is taken by the next.
        places = torch.arange(k - 1, device=self.ids.device) + unwanted[..., : k - 1].cumsum(dim=-1)
        return Neighbours(*(t.gather(-1, places) for t in (self.distances, self.ids, self.values)))

    def select(self, rows: Tensor) -> "Neighbours":
        """Those of some queries: *rows* indexes the flattened leading dimensions (any shape)."""
        return Neighbours(*(t.flatten(0, -2)[rows] for t in (self.distances, self.ids, self.values)))

    def followed_by(self, others: "Neighbours") -> "Neighbours":
        """These and, behind them in every row, others (keys and key_log_probs are left out)."""
        pairs = ((self.distances, others.distances), (self.ids, others.ids), (self.values, others.values))
        return Neighbours(*(torch.cat(pair, dim=-1) for pair in pairs))

    @staticmethod
    def stack(steps: Sequence["Neighbours"]) -> "Neighbours":
        """Of steps of (B, m), each with m of its own, (B, steps, the largest m) (without keys and key_log_probs)."""
        width = max(step.ids.size(-1) for step in steps)

        def padded(tensors: list[Tensor], fill: float) -> Tensor:
            return torch.stack([nn.functional.pad(t, (0, width - t.size(-1)), value=fill) for t in tensors], dim=1)

        return Neighbours(
            padded([step.distances for step in steps], torch.inf),
            padded([step.ids for step in steps], -1),
            padded([step.values for step in steps], 0),
        )

    @staticmethod
    def none(shape: tuple[int, ...], k: int, device: torch.device) -> "Neighbours":
        """No neighbours for queries of the given leading shape."""
        return Neighbours(
            torch.full((*shape, k), torch.inf, device=device),
            torch.full((*shape, k), -1, dtype=torch.int64, device=device),
            torch.zeros((*shape, k), dtype=torch.int64, device=device),
        )
