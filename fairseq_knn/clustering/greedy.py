"""Greedy merging of near entries with one value (He et al. 2021; Martins et al. 2022)."""

import time

import numpy as np

from fairseq_knn.clustering.keys import ClusteredKeys
from fairseq_knn.clustering.progress import Progress
from fairseq_knn.clustering.settings import Greedy
from fairseq_knn.clustering.unfinished import Unfinished
from fairseq_knn.index import SearchBackend

_BLOCK = 1024  # entries visited between two searches
# The state is kept after this time, and after ten times what keeping it took last.
_SAVE_SECONDS = 60.0


def greedy_merge(
    keys: ClusteredKeys,
    values: np.ndarray,
    backend: SearchBackend,
    settings: Greedy,
    unfinished: Unfinished,
    progress: Progress,
) -> tuple[np.ndarray, int]:
    """Visit the entries in random order. One that is in no cluster founds one; of its n nearest, those with its value
    that are in no cluster either join it.

    Neighbours are looked for a block at a time, for the entries that are in no cluster when the block begins.

    Args:
        keys: of the entries.
        values: of the entries, (N,).
        backend: finds their neighbours.
        settings: n and the order.
        unfinished: what an interrupted run has left.
        progress: where to tell of it.

    Returns:
        cluster of every entry, int32 (N,), numbered in the order they were founded, and their number.

    Raises:
        UserError: the disk is full.
    """
    entries = len(values)
    order = np.arange(entries, dtype=np.int32 if entries < 2**31 else np.int64)
    np.random.default_rng(settings.seed).shuffle(order)
    state = unfinished.load()
    if state is None:
        visited, count, cluster = 0, 0, np.full(entries, -1, np.int32)
        progress.say(
            f"greedy merging: {entries:,} entries with {settings.neighbours} neighbours on {backend.device.type}"
        )
    else:
        visited, count, cluster = int(state["visited"]), int(state["count"]), state["cluster"]
        progress.say(f"going on with greedy merging: {visited:,} of {entries:,} entries are visited")
    saved, interval = time.monotonic(), _SAVE_SECONDS
    with progress.bar("merging entries", entries, visited) as bar:
        while visited < entries:
            block = order[visited : visited + _BLOCK]
            founders = block[cluster[block] < 0]
            if len(founders):
                # One more than asked for: the nearest is mostly the entry itself.
                _, ids = backend.search(keys.gather(founders), settings.neighbours + 1)
                count = merge_block(founders, ids.cpu().numpy(), values, cluster, count, settings.neighbours)
            visited += len(block)
            bar.update(len(block))
            started = time.monotonic()
            if started - saved > interval and visited < entries:
                unfinished.save(visited=visited, count=count, cluster=cluster)
                saved = time.monotonic()
                interval = max(_SAVE_SECONDS, 10 * (saved - started))
    return cluster, count


def merge_block(
    founders: np.ndarray, ids: np.ndarray, values: np.ndarray, cluster: np.ndarray, count: int, neighbours: int
) -> int:
    """Let entries found clusters one after the other.

    Args:
        founders: entries that are in no cluster yet, (m,), in the order they are visited.
        ids: their nearest entries, nearest first, (m, *neighbours* + 1), themselves among them or not; -1 is none.
        values: of all entries, (N,).
        cluster: of all entries, (N,), -1 for none; changed in place.
        count: number of clusters so far.
        neighbours: how many of the nearest others may join.

    Returns:
        the new number of clusters.
    """
    others = (ids >= 0) & (ids != founders[:, None])
    others &= others.cumsum(axis=1) <= neighbours
    joining = others & (values[ids] == values[founders][:, None]) & (cluster[ids] < 0)
    rows, columns = joining.nonzero()
    candidates = ids[rows, columns].tolist()
    ends = np.searchsorted(rows, np.arange(len(founders)), side="right").tolist()
    # Plain integers: looking at single elements of arrays would take most of the time.
    joined: dict[int, int] = {}
    start = 0
    for founder, end in zip(founders.tolist(), ends, strict=True):
        if founder not in joined:
            joined[founder] = count
            for candidate in candidates[start:end]:
                joined.setdefault(candidate, count)
            count += 1
        start = end
    cluster[np.fromiter(joined.keys(), np.int64, len(joined))] = np.fromiter(joined.values(), np.int32, len(joined))
    return count
