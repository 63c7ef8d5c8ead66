"""Exact search where several GPUs hold the keys together."""

from collections.abc import Sequence

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.torch_backend import TorchBackend


class ShardedBackend(SearchBackend):
    """Every device searches its part of the entries, and the nearest of all parts are the neighbours.

    The parts are consecutive and equal in size, so the result is that of :class:`~fairseq_knn.index.torch_backend
    .TorchBackend` on one device, entries at equal distances included: the smaller id comes first. On GPUs all parts are
    searched at the same time: a search is launched on each, and only then is the first result asked for.

    Args:
        datastore: whose keys are searched.
        devices: that hold them; results are merged on the first one. One may be there several times.

    Raises:
        DatastoreError: a file of keys is damaged, or they were dropped.
        UserError: they do not fit.
    """

    keeps_keys = True

    def __init__(self, datastore: Datastore, devices: Sequence[torch.device]) -> None:
        self.entries, self.dimension, self.device = datastore.entries, datastore.dimension, devices[0]
        size = -(-datastore.entries // len(devices))
        self._starts = range(0, datastore.entries, size)
        self._parts = [
            TorchBackend(datastore, device, entries=range(start, min(start + size, datastore.entries)))
            for start, device in zip(self._starts, devices, strict=False)  # fewer parts where there are few entries
        ]

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        moved = queries.to(self.device)
        found = [part.search(moved.to(part.device), k) for part in self._parts]
        distances = torch.cat([each.to(self.device) for each, _ in found], dim=1)
        ids = [
            torch.where(each >= 0, each + start, each).to(self.device)
            for (_, each), start in zip(found, self._starts, strict=True)
        ]
        # Stable: of equal distances the part before, with smaller ids, comes first.
        distances, order = distances.sort(dim=1, stable=True)
        nearest = torch.cat(ids, dim=1).gather(1, order[:, :k])
        return distances[:, :k].to(queries.device), nearest.to(queries.device)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        moved = ids.to(self.device)
        result = torch.zeros((*ids.shape, self.dimension), device=self.device)
        for part, start in zip(self._parts, self._starts, strict=True):
            # Every part is asked for all: choosing its own would make a GPU wait for their number.
            rows = part.vectors((moved - start).clamp(0, part.entries - 1)).to(result)
            own = (moved >= start) & (moved < start + part.entries)
            result = torch.where(own.unsqueeze(-1), rows, result)
        return result
