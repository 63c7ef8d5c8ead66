"""Stored keys must find themselves: what a search that goes wrong silently fails."""

import numpy as np
import torch

from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.datastore.layout import sample_path
from fairseq_knn.errors import DatastoreError
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.sampling import sample_entries
from fairseq_knn.storage.digest import file_digest

SELF_TEST_KEYS = 32
_AMONG = 8  # nearest


def self_test_sample(datastore: Datastore) -> tuple[np.ndarray, np.ndarray]:
    """A fixed sample of entries, int64 (n,), and their keys, (n, d); also when the other keys were dropped.

    Raises:
        DatastoreError: what was kept of dropped keys is missing or damaged.
    """
    sample = sample_entries(datastore.entries, SELF_TEST_KEYS, seed=1)
    return sample, datastore.gather_keys(sample) if datastore.has_keys else _kept_keys(datastore)


def _kept_keys(datastore: Datastore) -> np.ndarray:
    file = sample_path(datastore.path)
    recorded = datastore.sample_digest if isinstance(datastore, ShardedDatastore) else None
    if not file.exists() or file_digest(file) != recorded:
        state = "damaged" if file.exists() else "missing"
        raise DatastoreError(
            f"{file}, the keys that were kept to test the index with, is {state}: restore it, or build the datastore "
            "again with --knn-overwrite"
        )
    keys: np.ndarray = np.load(file)
    return keys


def keys_found(search: SearchBackend, datastore: Datastore) -> int:
    """How many of a fixed sample of stored keys find themselves, or a key equal to themselves."""
    sample, keys = self_test_sample(datastore)
    distances, ids = search.search(torch.from_numpy(keys), _AMONG)
    found = (ids.numpy() == sample[:, None]).any(axis=1)
    if datastore.has_keys:
        nearest = datastore.gather_keys(ids[:, 0].clamp_min(0).numpy())
        found |= (nearest == keys).all(axis=1)
    else:
        found |= distances[:, 0].numpy() == 0
    return int(found.sum())
