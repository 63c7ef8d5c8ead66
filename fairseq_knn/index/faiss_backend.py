"""Search in the index that ``fairseq-knn build-index`` made."""

import importlib
import logging

import faiss
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.backend import SearchBackend, as_matrix, mark_missing
from fairseq_knn.index.faiss_files import read_index, reason
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.index.sampling import sample_entries

logger = logging.getLogger(__name__)

SELF_TEST_KEYS = 32
# Candidates that an index re-ranks: at least and at most so many, but always a few per neighbour. With k = 1024 the
# re-ranking of four per neighbour takes most of the time, and what is missed depends on nprobe.
_LEAST_CANDIDATES, _MOST_CANDIDATES, _PER_NEIGHBOUR = 128, 512, 4
_SELF_TEST_SLACK = 1 / 16  # near-ties may fall differently on another processor


class FaissSearch(SearchBackend):
    """A faiss index with its search settings.

    Args:
        index: faiss index over squared Euclidean distances, in the order of the entries.
        device: where to search; an index that GPUs cannot hold is searched on the CPU.
        nprobe: lists to look into; an index without lists ignores it.
        k_factor: how many of the nearest by code are ranked again by their exact distances, for each
            neighbour asked for (more if k is 1, fewer if it is large); an index without re-ranking ignores it.

    Attributes:
        nprobe: lists looked into; ``None`` for an index without lists.
    """

    def __init__(self, index: faiss.Index, device: torch.device, nprobe: int, k_factor: int) -> None:
        self.entries, self.dimension = index.ntotal, index.d
        self.nprobe = _set_nprobe(index, nprobe)
        self._k_factor = k_factor if isinstance(index, faiss.IndexRefine) else None
        on_gpu = _to_gpu(index, device) if device.type == "cuda" else None
        self.device = device if on_gpu is not None else torch.device("cpu")
        self._index = index if on_gpu is None else on_gpu

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        moved = as_matrix(queries, self.dimension).to(self.device, torch.float32).contiguous()
        if self._k_factor is not None:
            candidates = min(max(self._k_factor * k, _LEAST_CANDIDATES), _MOST_CANDIDATES)
            self._index.k_factor = max(candidates / k, _PER_NEIGHBOUR)
        if self.device.type == "cpu":
            distances, ids = map(torch.from_numpy, self._index.search(moved.numpy(), k))
        else:
            distances, ids = self._index.search(moved, k)
        distances, ids = mark_missing(distances, ids, k)
        return distances.to(queries.device), ids.to(queries.device)


class FaissBackend(FaissSearch):
    """The index of a datastore, checked against it.

    Args:
        datastore: whose index is searched.
        device: see :class:`FaissSearch`.
        nprobe: see :class:`FaissSearch`.

    Raises:
        SearchIndexError: there is no index, it is older than the datastore, damaged, or this build of
            faiss does not find with it what was found when it was built.
    """

    def __init__(self, datastore: Datastore, device: torch.device, nprobe: int) -> None:
        record = IndexRecord.load(datastore)
        index = read_index(index_path(datastore.path))
        if (index.ntotal, index.d) != (datastore.entries, datastore.dimension):
            raise SearchIndexError(
                f"{index_path(datastore.path)} holds {index.ntotal:,} keys of dimension {index.d}, its "
                f"datastore {datastore.entries:,} of dimension {datastore.dimension}: build it again with "
                f"`fairseq-knn build-index {datastore.path}`"
            )
        super().__init__(index, device, nprobe, record.k_factor or 1)
        if self.nprobe is not None and record.nprobe is not None and self.nprobe < record.nprobe:
            logger.warning(
                f"{index_path(datastore.path)}: its recall ({record.recall:.3f}) was measured with --knn-nprobe "
                f"{record.nprobe}; with {self.nprobe} it is lower"
            )
        found = keys_found(self, datastore)
        if found < record.found - int(_SELF_TEST_SLACK * min(SELF_TEST_KEYS, self.entries)):
            raise SearchIndexError(
                f"of {min(SELF_TEST_KEYS, self.entries)} stored keys looked up in "
                f"{index_path(datastore.path)} {found} find themselves, against {record.found} when it "
                f"was built: it is damaged, or this build of faiss ({faiss.__version__}) searches "
                f"wrongly; build it again with `fairseq-knn build-index {datastore.path}`, or pass "
                "--knn-backend torch"
            )


def keys_found(search: SearchBackend, datastore: Datastore) -> int:
    """How many of a fixed sample of stored keys find themselves, or a key equal to themselves."""
    sample = sample_entries(datastore.entries, SELF_TEST_KEYS, seed=1)
    keys = datastore.gather_keys(sample)
    _, ids = search.search(torch.from_numpy(keys), 8)
    found = (ids.numpy() == sample[:, None]).any(axis=1)
    nearest = datastore.gather_keys(ids[:, 0].clamp_min(0).numpy())
    return int((found | (nearest == keys).all(axis=1)).sum())


def _set_nprobe(index: faiss.Index, nprobe: int) -> int | None:
    """Set the lists to look into, also below transforms and re-ranking; ``None`` if there are none."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return None
    lists.nprobe = min(nprobe, lists.nlist)
    return int(lists.nprobe)


def _to_gpu(index: faiss.Index, device: torch.device) -> faiss.Index | None:
    """A copy of *index* on a GPU, or ``None`` if this faiss or this kind of index cannot."""
    try:
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
            raise RuntimeError("it sees none")
        # Makes indexes on a GPU take torch tensors, on torch's stream.
        importlib.import_module("faiss.contrib.torch_utils")
        number = torch.cuda.current_device() if device.index is None else device.index
        copy = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)
        if not isinstance(copy, faiss.GpuIndex):
            raise RuntimeError(f"GPUs have no {type(index).__name__}")
        return copy
    except RuntimeError as error:
        logger.warning(f"faiss searches on the CPU, for it cannot put this index on the GPU: {reason(error)}")
        return None
