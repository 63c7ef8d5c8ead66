"""The keys that are clustered, read piece by piece."""

import numpy as np
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.index.stored_keys import StoredKeys, StreamedKeys


class ClusteredKeys:
    """Keys of a datastore by the numbers of their entries; if they were dropped, as its index gives them back.

    Raises:
        SearchIndexError: they were dropped, and the index is damaged or of a kind that does not give them back.
    """

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._starts = np.cumsum([0, *datastore.shard_entries])
        self._verified: set[int] = set()
        self._keys: StoredKeys = StreamedKeys(datastore)
        if not datastore.has_keys:
            # faiss brings a second OpenMP runtime: it is loaded only where it is used.
            from fairseq_knn.index.reconstruction import ReconstructedKeys

            IndexRecord.load(datastore).verify(datastore)
            self._keys = ReconstructedKeys(datastore)

    def gather(self, entries: np.ndarray) -> torch.Tensor:
        """Keys of the given entries (n,), float32 (n, d) on the CPU."""
        return self._keys.gather(torch.from_numpy(entries.astype(np.int64))).float()

    def range(self, start: int, stop: int) -> torch.Tensor:
        """Keys of the entries from *start* to *stop*, float32 (n, d) on the CPU; each file is first compared with its
        checksum.

        Raises:
            DatastoreError: a file is damaged.
        """
        if not self._datastore.has_keys:
            return self.gather(np.arange(start, stop))
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        for shard in range(int(first), int(last) + 1):
            if shard not in self._verified:
                self._datastore.verify_keys(shard)
                self._verified.add(shard)
        return torch.from_numpy(self._datastore.keys(start, stop)).float()
