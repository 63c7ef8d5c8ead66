"""Keys that were dropped, as the index of their datastore still holds them."""

from collections.abc import Iterator

import faiss
import numpy as np
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.faiss_files import explain_faiss_errors, read_index
from fairseq_knn.index.record import IndexRecord

_REMEDY = "build the datastore again with --knn-overwrite and keep its keys"


class ReconstructedKeys:
    """Keys decoded from an index, many at a time: as they were from one that re-ranks, else as near as its codes are.

    Args:
        datastore: whose index ``fairseq-knn build-index`` made.

    Raises:
        SearchIndexError: there is no finished index, it is of another state of the datastore, or of a kind that cannot
            be decoded.
    """

    def __init__(self, datastore: Datastore) -> None:
        IndexRecord.load(datastore)
        self._index = read_index(index_path(datastore.path), mapped=True)
        self._dimension = datastore.dimension
        # What re-ranks keeps its keys in their order; inverted lists have to learn first where each entry is.
        lists = None if isinstance(self._index, faiss.IndexRefine) else faiss.try_extract_index_ivf(self._index)
        # Asked for codes in the layout of fast scan that it has read from a file, faiss 1.15 crashes.
        if isinstance(lists and faiss.downcast_index(lists), faiss.IndexIVFFastScan):
            raise SearchIndexError(
                f"the keys of {datastore.path} were dropped, and {index_path(datastore.path)}, fast scan without "
                f"re-ranking, cannot give them back: {_REMEDY}"
            )
        with explain_faiss_errors("give back the keys that are in this kind of index", _REMEDY):
            if lists is not None:
                lists.make_direct_map()
            self._decode(np.zeros(1, np.int64))

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All keys in order, at most *rows* at a time, as (first entry, float32 (n, d))."""
        entries = self._index.ntotal
        for start in range(0, entries, rows):
            yield start, self.gather(torch.arange(start, min(start + rows, entries)))

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        """Keys of the given entries, float32 ids.shape + (d,), on the CPU."""
        flat = ids.reshape(-1).cpu().numpy().astype(np.int64)
        return torch.from_numpy(self._decode(flat)).view(*ids.shape, self._dimension)

    def _decode(self, ids: np.ndarray) -> np.ndarray:
        keys: np.ndarray = self._index.reconstruct_batch(ids)
        return keys
