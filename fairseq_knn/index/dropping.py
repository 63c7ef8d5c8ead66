"""Giving up the keys of a datastore whose index is all that is searched."""

from dataclasses import replace

import numpy as np
import torch

from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.datastore.layout import array_path, dropped_path, index_path, sample_path
from fairseq_knn.datastore.npy import write_npy
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.index.self_test import keys_found, self_test_sample
from fairseq_knn.storage.atomic import directory_lock, explain_os_errors, write_json

_DROPPED = frozenset({"keys"})


def droppable(datastore: Datastore) -> ShardedDatastore:
    """*datastore*, if its keys may be dropped.

    Raises:
        DatastoreError: it is another toolkit's.
    """
    if not isinstance(datastore, ShardedDatastore):
        raise DatastoreError(
            f"{datastore.path} is the datastore of another toolkit, whose files are left alone: make one of this "
            f"package of it with `fairseq-knn convert {datastore.path} NEW DATA --path BASE.pt` first"
        )
    return datastore


def drop_keys(datastore: Datastore) -> int:
    """Delete the keys of a datastore that has a whole index; an interrupted call can be repeated.

    A few keys are kept, to test the index with.

    Returns:
        the number of bytes freed.

    Raises:
        SearchIndexError: there is no finished index, or it is damaged or older than the datastore, or needs the keys.
        DatastoreError: the datastore is another toolkit's.
    """
    datastore = droppable(datastore)
    root = datastore.path
    with directory_lock(root):
        if datastore.has_keys:
            record = IndexRecord.load(datastore)
            if record.settings.on_disk:
                raise SearchIndexError(
                    f"the keys of {root} are what its index on disk ranks candidates by, so they cannot be dropped: "
                    f"build another index first, without --on-disk"
                )
            record.verify(datastore)
            _, keys = self_test_sample(datastore)
            kept = write_npy(sample_path(root), keys.shape, np.dtype(np.float16), [keys])
            without = ShardedDatastore(root, datastore.manifest, _DROPPED, kept.sha256)
            search = FaissSearch(
                read_index(index_path(root), mapped=True), torch.device("cpu"), record.nprobe or 1, record.k_factor or 1
            )
            replace(record, found=keys_found(search, without)).save(datastore)
            # From here on the keys count as dropped, whatever of them is still there.
            write_json(dropped_path(root), {"arrays": sorted(_DROPPED), "sample": kept.sha256})
        freed = 0
        with explain_os_errors(root):
            for shard in range(len(datastore.shard_entries)):
                path = array_path(root, "keys", shard)
                if path.exists():
                    freed += path.stat().st_size
                    path.unlink()
        return freed
