"""What every search backend promises."""

from abc import ABC, abstractmethod

import torch


class SearchBackend(ABC):
    """Finds the stored keys nearest to queries.

    Attributes:
        entries: number of stored keys, N.
        dimension: of keys and queries, d.
        device: where the search runs, or the results of several devices are put together; queries from elsewhere are
            copied there and back.
        keeps_keys: whether it has the stored keys in memory, and :meth:`vectors` gives them.
    """

    entries: int
    dimension: int
    device: torch.device
    keeps_keys = False

    @abstractmethod
    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the *k* nearest keys of every query.

        Args:
            queries: (n, d) of any floating dtype, on any device; n = 0 is legal.
            k: number of neighbours; it may exceed what there is to find.

        Returns:
            squared Euclidean distances, float32 (n, k), ascending and never negative, and the ids of the
            entries, int64 (n, k), both on the device of the queries. A missing neighbour has id -1 and
            distance +inf.
        """

    @abstractmethod
    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """What the distances of :meth:`search` are measured to: the keys, or what an index has kept of them.

        Args:
            ids: of entries, int64 (n,), on any device.

        Returns:
            (n, d), float16 or float32, on any device.
        """


def as_matrix(queries: torch.Tensor, dimension: int) -> torch.Tensor:
    """Check the shape of queries.

    Raises:
        ValueError: they are not (n, *dimension*).
    """
    if queries.dim() != 2 or queries.shape[1] != dimension:
        raise ValueError(f"queries have shape {tuple(queries.shape)}, expected (n, {dimension})")
    return queries


def mark_missing(distances: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clamp distances at 0, give what was not found id -1 and distance +inf, and pad to *k* columns.

    Args:
        distances: float32 (n, m), m <= k; anything that is no finite number marks a missing neighbour.
        ids: int64 (n, m); negative ids mark missing neighbours.
    """
    found = (ids >= 0) & torch.isfinite(distances)
    distances = distances.clamp_min(0).masked_fill(~found, torch.inf)
    ids = ids.masked_fill(~found, -1)
    if (missing := k - ids.shape[1]) > 0:
        distances = torch.nn.functional.pad(distances, (0, missing), value=torch.inf)
        ids = torch.nn.functional.pad(ids, (0, missing), value=-1)
    return distances, ids
