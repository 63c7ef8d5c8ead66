"""The centroid nearest to every key: what k-means asks over and over."""

from abc import ABC, abstractmethod

import faiss
import torch

from fairseq_knn.index.factory import K_FACTOR, choose_factory, training_size
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.sampling import sample_entries

# Centroids on a CPU beyond which an index over them is searched. Measured on one core, microseconds per key, exact
# against index: 152 and 130 for 40,000 centroids of dimension 128, 235 and 290 of dimension 256; 323 and 146 for
# 100,000 of dimension 128.
EXACT_CENTROIDS = 40_000
_NPROBE = 32
# Keys and centroids multiplied at a time. A product of 1,024 x 1,024 stays in the cache of a CPU core and is as fast as
# any other shape; a GPU wants few, large kernels.
_CPU_ROWS, _GPU_ROWS = 1024, 8192
_TOLERANCE = 1e-5  # relative; between two float32 sums in different order


class CentroidSearch(ABC):
    """Finds the centroid nearest to each of many keys.

    Attributes:
        exact: whether it is always the nearest one.
    """

    exact: bool

    @abstractmethod
    def nearest(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            keys: float32 (n, d) on the CPU.

        Returns:
            squared Euclidean distances, float32 (n,), and numbers of the centroids, int64 (n,), both on the CPU.
        """


def search_centroids(centroids: torch.Tensor, device: torch.device) -> CentroidSearch:
    """Make centroids searchable: exactly on a GPU or where they are few, else by an index over them.

    Args:
        centroids: float32 (C, d) on the CPU.
        device: where to search.
    """
    if device.type == "cpu" and len(centroids) > EXACT_CENTROIDS:
        return IndexedCentroids(centroids)
    return ExactCentroids(centroids, device)


class ExactCentroids(CentroidSearch):
    """Every key against every centroid, by matrix products.

    Args:
        centroids: float32 (C, d).
        device: where they are kept.
    """

    exact = True

    def __init__(self, centroids: torch.Tensor, device: torch.device) -> None:
        self._centroids = centroids.to(device)
        self._norms = self._centroids.square().sum(1)
        self._rows = _CPU_ROWS if device.type == "cpu" else _GPU_ROWS

    def nearest(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances, ids = torch.empty(len(keys)), torch.empty(len(keys), dtype=torch.int64)
        for start in range(0, len(keys), self._rows):
            part = slice(start, start + self._rows)
            moved = keys[part].to(self._centroids.device)
            best = moved.new_full((len(moved),), -torch.inf)
            numbers = torch.zeros(len(moved), dtype=torch.int64, device=moved.device)
            for first in range(0, len(self._centroids), self._rows):
                block = slice(first, first + self._rows)
                # Of |k - c|^2 what depends on the centroid, negated.
                scores = torch.addmm(-self._norms[block], moved, self._centroids[block].T, alpha=2)
                highest, columns = scores.max(dim=1)
                better = highest > best
                best, numbers = torch.where(better, highest, best), torch.where(better, columns + first, numbers)
            distances[part] = (moved - self._centroids[numbers]).square_().sum(1).cpu()
            ids[part] = numbers.cpu()
        return distances, ids


class IndexedCentroids(CentroidSearch):
    """An index over the centroids, on the CPU, with the settings of a datastore's.

    Args:
        centroids: float32 (C, d).
    """

    exact = False

    def __init__(self, centroids: torch.Tensor) -> None:
        count, dimension = centroids.shape
        cpu = torch.device("cpu")
        index = faiss.index_factory(dimension, choose_factory(count, dimension, cpu))
        if not index.is_trained:
            lists = faiss.try_extract_index_ivf(index)
            size = training_size(count, 0 if lists is None else lists.nlist)
            index.train(centroids[torch.from_numpy(sample_entries(count, size, seed=1))].numpy())
        index.add(centroids.numpy())
        self._search = FaissSearch(index, cpu, _NPROBE, K_FACTOR)

    def nearest(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances, ids = self._search.search(keys, 1)
        # A key that is NaN has no nearest centroid; the first will do, as in the exact search.
        return distances[:, 0], ids[:, 0].clamp_min(0)


def centroid_recall(search: CentroidSearch, centroids: torch.Tensor, keys: torch.Tensor, device: torch.device) -> float:
    """Share of *keys* (float32 (n, d)) for which *search* finds the nearest centroid, or one as near."""
    nearest, _ = ExactCentroids(centroids, device).nearest(keys)
    _, found = search.nearest(keys)
    distances = (keys - centroids[found]).square().sum(1)
    return float((distances <= nearest * (1 + _TOLERANCE)).float().mean())
