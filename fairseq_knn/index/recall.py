"""How much of what exact search finds an index finds, and how fast."""

import statistics
import time
from dataclasses import dataclass

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.sampling import sample_entries

QUERIES = 512
_BATCH = 128
_TOLERANCE = 1e-5  # relative; between two float32 sums in different order


@dataclass(frozen=True)
class Measurement:
    """Recall in [0, 1] and the median time in milliseconds of a search with up to 128 queries."""

    recall: float
    milliseconds: float


class RecallTest:
    """Searches for a sample of stored keys, each without its own entry.

    A found key counts if it is as near as the k-th of the exact search, so which of several equally near
    keys was chosen does not matter.

    Args:
        exact: the truth; it is searched once.
        datastore: whose keys are searched.
        k: number of neighbours.
        seed: of the sample.
    """

    def __init__(self, exact: SearchBackend, datastore: Datastore, k: int, seed: int) -> None:
        sample = sample_entries(datastore.entries, QUERIES, seed)
        self._datastore, self._k = datastore, k
        self._keys = torch.from_numpy(datastore.gather_keys(sample))
        self._own = torch.from_numpy(sample)[:, None]
        distances, ids = exact.search(self._keys, k + 1)
        self._truth = _without(self._own, ids, distances)

    def measure(self, search: SearchBackend) -> Measurement:
        """What *search*, over the same datastore, finds of the truth."""
        ids, milliseconds = _timed_search(search, self._keys, self._k + 1)
        distances = _without(self._own, ids, _exact_distances(self._datastore, self._keys, ids))
        furthest = self._truth.masked_fill(self._truth.isinf(), -1).amax(dim=1, keepdim=True)
        hits = int((distances <= furthest * (1 + _TOLERANCE)).sum())
        wanted = int(torch.isfinite(self._truth).sum())
        return Measurement(hits / wanted if wanted else 1.0, milliseconds)


def _timed_search(search: SearchBackend, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, float]:
    """Ids (n, k) on the CPU, and the median time of a batch in milliseconds."""
    moved = queries.to(search.device)
    search.search(moved[:_BATCH], k)  # the first search is slower than all others
    found, times = [], []
    for start in range(0, len(moved), _BATCH):
        started = time.perf_counter()
        found.append(search.search(moved[start : start + _BATCH], k)[1].cpu())
        times.append(1000 * (time.perf_counter() - started))
    return torch.cat(found), statistics.median(times)


def _exact_distances(datastore: Datastore, queries: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Squared distances of the keys *ids* (n, k), +inf for a missing or repeated one, float32 (n, k)."""
    keys = torch.from_numpy(datastore.gather_keys(ids.clamp_min(0).flatten().numpy())).view(*ids.shape, -1)
    distances = (keys.float() - queries.float()[:, None]).square_().sum(2)
    repeated = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(dim=2)
    return distances.masked_fill((ids < 0) | repeated, torch.inf)


def _without(own: torch.Tensor, ids: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Distances (n, k) of the k + 1 neighbours without the query's own entry, or without the last of them."""
    first = (ids == own).int().sort(dim=1, stable=True).indices[:, :-1]
    return distances.gather(1, first)
