"""A datastore many times as large: every key again and again, moved by as much as keys are apart.

The first copy is the real keys. In the others a key is moved in a random direction, on average by the median distance
from a key to its nearest neighbour, so that copies are as near to it as its neighbours are, and not nearer.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fairseq_knn.datastore import Datastore, DatastoreWriter
from fairseq_knn.index import open_backend
from fairseq_knn.index.sampling import sample_entries

_SAMPLE = 512
_BLOCK = 65536  # keys at a time


def neighbour_distance(datastore: Datastore) -> float:
    """Median distance from a key to the nearest other one, of a sample."""
    sample = sample_entries(datastore.entries, _SAMPLE, seed=1)
    exact = open_backend(datastore, backend="torch", device="cpu")
    distances, _ = exact.search(torch.from_numpy(datastore.gather_keys(sample)), 2)
    return float(distances[:, 1].median().sqrt())


def enlarge(datastore: Datastore, path: Path, factor: int) -> None:
    """Write *factor* times the entries of *datastore* to *path*, one copy a shard."""
    distance = neighbour_distance(datastore)
    print(f"median distance of nearest neighbours: {distance:.3f}; length of keys: {_length(datastore):.3f}")
    deviation = distance / datastore.dimension**0.5
    random = np.random.default_rng(1)
    assert datastore.plan is not None
    blocks = range(0, datastore.entries, _BLOCK)
    # What counts as a sentence here is a block of keys.
    writer = DatastoreWriter(
        path, replace(datastore.plan, sentences=factor * len(blocks), shard_sentences=len(blocks)), overwrite=True
    )
    for copy in range(factor):
        shard = writer.open_shard(copy)
        for number, start in enumerate(blocks):
            keys = datastore.keys(start, start + _BLOCK)
            if copy:
                keys = keys + deviation * random.standard_normal(keys.shape, dtype=np.float32)
            values = datastore.values[start : start + _BLOCK]
            shard.add([copy * len(blocks) + number], [len(keys)], keys, values)
        shard.commit()
        print(f"copy {copy + 1} of {factor}", flush=True)
    writer.finish()


def _length(datastore: Datastore) -> float:
    keys = datastore.gather_keys(sample_entries(datastore.entries, _SAMPLE, seed=1))
    return float(np.linalg.norm(keys.astype(np.float32), axis=1).mean())
