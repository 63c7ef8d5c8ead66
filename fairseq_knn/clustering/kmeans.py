"""k-means (Lloyd's algorithm) over keys that stay on disk.

Memory is 16 bytes per cluster and dimension (centroids, an index over them or their successors, and sums in double
precision), and up to 20 per entry, while the sample is drawn.
"""

from collections.abc import Callable

import numpy as np
import torch

from fairseq_knn.clustering.keys import ClusteredKeys
from fairseq_knn.clustering.progress import Progress
from fairseq_knn.clustering.settings import KMeans
from fairseq_knn.clustering.unfinished import Unfinished
from fairseq_knn.index.sampling import sample_entries
from fairseq_knn.index.stored_keys import rows_of

_BLOCK_BYTES = 64 << 20  # of float32 keys that are read at once
_MEASURED = 1000  # keys whose nearest centroid is looked for exactly, too
_SPLIT = 1 / 1024  # relative distance of two centroids that share what was one cluster, as in faiss


def kmeans(
    keys: ClusteredKeys,
    entries: int,
    dimension: int,
    settings: KMeans,
    device: torch.device,
    unfinished: Unfinished,
    progress: Progress,
) -> np.ndarray:
    """Learn centroids, keeping them after every iteration, and assign all entries, keeping each block.

    Args:
        keys: of the entries.
        entries, dimension: number of keys and of their components.
        settings: how many clusters, learned from what.
        device: where the centroids are searched.
        unfinished: what an interrupted run has left.
        progress: where to tell of it.

    Returns:
        cluster of every entry, int32 (N,).

    Raises:
        DatastoreError: a file of keys is damaged.
        UserError: the disk is full.
    """
    rows = rows_of(_BLOCK_BYTES, 4 * dimension)
    centroids = _learn(keys, entries, settings, device, rows, unfinished, progress)
    return _assign(keys, entries, centroids, device, rows, unfinished, progress)


def _learn(
    keys: ClusteredKeys,
    entries: int,
    settings: KMeans,
    device: torch.device,
    rows: int,
    unfinished: Unfinished,
    progress: Progress,
) -> torch.Tensor:
    """Centroids, float32 (C, d)."""
    sample = sample_entries(entries, settings.sample, settings.seed)
    state = unfinished.load()
    if state is None:
        iteration = 0
        # Of another seed than the sample: with the same one, numpy would draw related numbers.
        centroids = keys.gather(sample[sample_entries(len(sample), settings.clusters, settings.seed + 1)])
        progress.say(
            f"k-means: {settings.clusters:,} clusters from {len(sample):,} of {entries:,} keys, "
            f"{settings.iterations} iterations on {device.type}"
        )
    else:
        iteration, centroids = int(state["iteration"]), torch.from_numpy(state["centroids"])
        progress.say(f"going on with k-means after iteration {iteration} of {settings.iterations}")
    total = settings.iterations * len(sample)
    with progress.bar("learning centroids", total, iteration * len(sample)) as bar:
        while iteration < settings.iterations:
            centroids, distance = lloyd_step(keys, sample, centroids, device, rows, bar.update)
            iteration += 1
            unfinished.save(iteration=iteration, centroids=centroids.numpy())
            bar.set_postfix_str(f"iteration {iteration}, mean squared distance {distance:.4g}")
    return centroids


def lloyd_step(
    keys: ClusteredKeys,
    sample: np.ndarray,
    centroids: torch.Tensor,
    device: torch.device,
    rows: int,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[torch.Tensor, float]:
    """Move every centroid to the mean of the keys that are nearest to it.

    Args:
        keys: of all entries.
        sample: entries that count, (n,).
        centroids: float32 (C, d).
        device: where they are searched.
        rows: number of keys that are read at once.
        advance: called with the number of keys done.

    Returns:
        the new centroids, float32 (C, d), and the mean squared distance of the keys from the old ones.
    """
    # Loaded here: it brings faiss, and with it a second OpenMP runtime.
    from fairseq_knn.index.centroids import search_centroids

    search = search_centroids(centroids, device)
    sums = torch.zeros(centroids.shape, dtype=torch.float64)
    counts = torch.zeros(len(centroids), dtype=torch.int64)
    distance = 0.0
    for start in range(0, len(sample), rows):
        block = keys.gather(sample[start : start + rows])
        distances, nearest = search.nearest(block)
        # On the CPU, where the order of the additions is always the same.
        sums.index_add_(0, nearest, block.double())
        counts += torch.bincount(nearest, minlength=len(centroids))
        distance += float(distances.double().sum())
        advance(len(block))
    del search
    sums /= counts.clamp_min(1)[:, None]
    lost = counts == 0
    sums[lost] = centroids[lost].double()
    moved = sums.float()
    _split(moved, counts)
    return moved, distance / len(sample)


def _split(centroids: torch.Tensor, counts: torch.Tensor) -> None:
    """Give clusters without keys half of the largest ones, in place: two centroids a little apart stand where one was.

    Args:
        centroids: float32 (C, d).
        counts: number of keys of each, int64 (C,).
    """
    empty = (counts == 0).nonzero().flatten()
    largest = counts.argsort(descending=True, stable=True)[: len(empty)]
    largest = largest[counts[largest] > 1]
    empty = empty[: len(largest)]
    sign = 1 - 2 * (torch.arange(centroids.shape[1]) % 2)
    centroids[empty] = centroids[largest] * (1 + _SPLIT * sign)
    centroids[largest] = centroids[largest] * (1 - _SPLIT * sign)


def _assign(
    keys: ClusteredKeys,
    entries: int,
    centroids: torch.Tensor,
    device: torch.device,
    rows: int,
    unfinished: Unfinished,
    progress: Progress,
) -> np.ndarray:
    from fairseq_knn.index.centroids import centroid_recall, search_centroids

    search = search_centroids(centroids, device)
    if not search.exact:
        some = keys.gather(sample_entries(entries, _MEASURED, seed=1))
        recall = centroid_recall(search, centroids, some, device)
        progress.say(f"an index over the centroids is searched: of {len(some):,} keys {recall:.1%} get the nearest one")
    cluster: np.ndarray = np.empty(entries, np.int32)
    kept = unfinished.assigned(rows)
    done = len(kept)
    cluster[:done] = kept
    with progress.bar("assigning keys", entries, done) as bar:
        for start in range(done, entries, rows):
            block = slice(start, min(start + rows, entries))
            _, nearest = search.nearest(keys.range(block.start, block.stop))
            cluster[block] = nearest.numpy()
            unfinished.assign(start, cluster[block])
            bar.update(len(nearest))
    return cluster
