"""Search in the index that ``fairseq-knn build-index`` made."""

import functools
import importlib
import logging
from collections.abc import Sequence

import faiss
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_path, index_record_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.backend import SearchBackend, as_matrix, mark_missing
from fairseq_knn.index.faiss_files import read_index, reason
from fairseq_knn.index.on_disk import read_lists
from fairseq_knn.index.reconstruction import IndexDecoder
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.index.reranking import nearest_by_keys
from fairseq_knn.index.self_test import SELF_TEST_KEYS, keys_found
from fairseq_knn.index.stored_keys import StoredKeys, StreamedKeys, open_keys

logger = logging.getLogger(__name__)

# Candidates that an index re-ranks: as many as for 8 neighbours at least and for 32 at most, but always a few per
# neighbour. With k = 1024 the re-ranking of four per neighbour takes most of the time, and what is missed depends on
# nprobe.
_LEAST_NEIGHBOURS, _MOST_NEIGHBOURS, _PER_NEIGHBOUR = 8, 32, 4
_PER_NEIGHBOUR_ON_DISK = 2  # each candidate is read from the datastore
_NPROBE = 32  # of an index whose own is not recorded: knn-box's
_SELF_TEST_SLACK = 1 / 16  # near-ties may fall differently on another processor
# Of every list, entry i is on GPU i mod G: all have equally much to do, whatever lists are looked into.
_BY_ENTRY = 1
_TABLE_BYTES = 48 << 10  # of the tables of a product quantiser that a GPU takes in float32


class FaissSearch(SearchBackend):
    """A faiss index with its search settings.

    Args:
        index: faiss index over squared Euclidean distances, in the order of the entries.
        device: where to search; an index that GPUs cannot hold is searched on the CPU.
        nprobe: lists to look into; an index without lists ignores it.
        k_factor: how many of the nearest by code are ranked again by their exact distances, for each
            neighbour asked for (more if k is 1, fewer if it is large); an index without re-ranking ignores it.
        keys: rank candidates again by these keys; the index itself has none then.
        gpus: that hold the index together, *device* among them, where there are several.

    Attributes:
        nprobe: lists looked into; ``None`` for an index without lists.
        k_factor: as given; ``None`` for an index without re-ranking.
        name: for messages.
    """

    def __init__(
        self,
        index: faiss.Index,
        device: torch.device,
        nprobe: int,
        k_factor: int,
        keys: StoredKeys | None = None,
        *,
        gpus: Sequence[torch.device] = (),
    ) -> None:
        self.entries, self.dimension = index.ntotal, index.d
        self.nprobe = _set_nprobe(index, nprobe)
        self._rank_by = keys
        self.k_factor = k_factor if keys is not None or isinstance(index, faiss.IndexRefine) else None
        on_gpu = _to_gpu(index, gpus or [device]) if device.type == "cuda" else None
        self.device = device if on_gpu is not None else torch.device("cpu")
        # What merges the parts of several GPUs takes queries from main memory, and leaves its results there.
        self._asked_on = self.device if len(gpus) < 2 else torch.device("cpu")
        self._index = index if on_gpu is None else on_gpu
        self._on_cpu = index  # GPUs cannot give back what they search
        self._decode: IndexDecoder | None = None
        self.name = "the index"

    @property
    def ranks_by_keys(self) -> bool:
        """Whether candidates are ranked again by keys of the datastore."""
        return self._rank_by is not None

    @property
    def effort(self) -> tuple[int | None, int | None]:
        """Lists looked into and candidates per neighbour."""
        return self.nprobe, self.k_factor

    def set_effort(self, nprobe: int, k_factor: int) -> None:
        """Search an index on the CPU with other settings."""
        self.nprobe = _set_nprobe(self._index, nprobe)
        if self.k_factor is not None:
            self.k_factor = k_factor

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        moved = as_matrix(queries, self.dimension).to(self._asked_on, torch.float32).contiguous()
        wanted = k
        if self.k_factor is not None:
            candidates = self.k_factor * min(max(k, _LEAST_NEIGHBOURS), _MOST_NEIGHBOURS)
            if self._rank_by is None:
                self._index.k_factor = max(candidates / k, _PER_NEIGHBOUR)
            else:
                wanted = max(candidates, _PER_NEIGHBOUR_ON_DISK * k)
        if self._asked_on.type == "cpu":
            distances, ids = map(torch.from_numpy, self._index.search(moved.numpy(), wanted))
        else:
            distances, ids = self._index.search(moved, wanted)
        if self._rank_by is not None:
            distances, ids = nearest_by_keys(self._rank_by, moved, ids, k)
        distances, ids = mark_missing(distances, ids, k)
        return distances.to(queries.device), ids.to(queries.device)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        if self._decode is None:
            self._decode = IndexDecoder(self._on_cpu, self.name)
        return torch.from_numpy(self._decode(ids.cpu().numpy()))


class FaissBackend(FaissSearch):
    """The index of a datastore, checked against it.

    Args:
        datastore: whose index is searched: the one ``fairseq-knn build-index`` made, else the one another toolkit
            left there.
        device: see :class:`FaissSearch`.
        nprobe: see :class:`FaissSearch`; ``None`` for as many lists as the index was measured with.
        mapped: leave the index on disk, memory mapped, as far as faiss can; on a GPU it is copied anyway. Lists on disk
            are read into memory otherwise, if they fit there; the keys that candidates are ranked by stay on disk.
        gpus: see :class:`FaissSearch`.

    Raises:
        SearchIndexError: there is no index, it is older than the datastore, damaged, or this build of
            faiss does not find with it what was found when it was built.
    """

    def __init__(
        self,
        datastore: Datastore,
        device: torch.device,
        nprobe: int | None,
        *,
        mapped: bool,
        gpus: Sequence[torch.device] = (),
    ) -> None:
        foreign = None if index_record_path(datastore.path).exists() else datastore.foreign_index
        record = IndexRecord.load(datastore) if foreign is None else None
        self.path = foreign or index_path(datastore.path)
        on_disk = record is not None and record.settings.on_disk
        index = read_index(self.path, mapped=mapped and not on_disk)
        if (index.ntotal, index.d) != (datastore.entries, datastore.dimension):
            raise SearchIndexError(
                f"{self.path} holds {index.ntotal:,} keys of dimension {index.d}, its "
                f"datastore {datastore.entries:,} of dimension {datastore.dimension}: build it again with "
                f"`fairseq-knn build-index {datastore.path}`"
            )
        if on_disk:
            device = torch.device("cpu")  # the lists are larger than its memory, too
            if not mapped:
                read_lists(index, self.path)
        own = _NPROBE if record is None or record.nprobe is None else record.nprobe
        keys = StreamedKeys(datastore) if on_disk else None
        super().__init__(index, device, nprobe or own, (record and record.k_factor) or 1, keys, gpus=gpus)
        self.name = str(self.path)
        if record is not None and record.nprobe is not None and (self.nprobe or 0) < record.nprobe:
            logger.warning(
                f"{self.path}: its recall ({record.recall:.3f}) was measured with --knn-nprobe "
                f"{record.nprobe}; with {self.nprobe} it is lower"
            )
        if record is None:
            logger.info(
                f"searching {self.path} as it is; `fairseq-knn build-index {datastore.path}` makes a faster one"
            )
        self._test(datastore, record)
        self._datastore, self._resident = datastore, not mapped
        # Without a detour where the index measures distances to the stored keys themselves.
        self._has_own_keys = datastore.has_keys and (on_disk or _keeps_keys(index))

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return self._keys.gather(ids) if self._has_own_keys else super().vectors(ids)

    @functools.cached_property
    def _keys(self) -> StoredKeys:
        """Opened when they are first asked for: most searches never do, and they may be large."""
        return open_keys(self._datastore, self.device, resident=self._resident)

    def _test(self, datastore: Datastore, record: IndexRecord | None) -> None:
        """Stored keys must find themselves, as many as when the index was built.

        Raises:
            SearchIndexError: they do not.
        """
        tested = min(SELF_TEST_KEYS, self.entries)
        if record is None:
            # Nobody counted then. An index of other keys finds about none; knn-box's keys as short codes, many.
            expected, against = tested // 4, "of which a quarter at least should"
        else:
            expected, against = (
                record.found - int(_SELF_TEST_SLACK * tested),
                f"against {record.found} when it was built",
            )
        found = keys_found(self, datastore)
        if found < expected:
            raise SearchIndexError(
                f"of {tested} stored keys looked up in {self.path} {found} find themselves, {against}: it is damaged, "
                f"of another datastore, or this build of faiss ({faiss.__version__}) searches "
                f"wrongly; build it again with `fairseq-knn build-index {datastore.path}`, or pass "
                "--knn-backend torch"
            )


def _keeps_keys(index: faiss.Index) -> bool:
    """Whether the distances of an index are those of the float16 keys, and not of codes."""
    if isinstance(index, faiss.IndexPreTransform):
        return False
    if isinstance(index, faiss.IndexRefine):
        index = index.refine_index
    index = faiss.downcast_index(index)
    half = isinstance(index, faiss.IndexScalarQuantizer) and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16
    return half or isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat)


def _set_nprobe(index: faiss.Index, nprobe: int) -> int | None:
    """Set the lists to look into, also below transforms and re-ranking; ``None`` if there are none."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return None
    lists.nprobe = min(nprobe, lists.nlist)
    return int(lists.nprobe)


def _to_gpu(index: faiss.Index, gpus: Sequence[torch.device]) -> faiss.Index | None:
    """A copy of *index* on a GPU or spread over several, or ``None`` if this faiss or this kind of index cannot."""
    try:
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
            raise RuntimeError("it sees none")
        numbers = [torch.cuda.current_device() if gpu.index is None else gpu.index for gpu in gpus]
        kind: type
        if len(numbers) == 1:
            # Makes indexes on a GPU take torch tensors, on torch's stream.
            importlib.import_module("faiss.contrib.torch_utils")
            options, kind = faiss.GpuClonerOptions(), faiss.GpuIndex
            options.useFloat16 = _needs_half_tables(index)
            copy = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), numbers[0], index, options)
        else:
            options, kind = faiss.GpuMultipleClonerOptions(), faiss.IndexShards
            options.useFloat16 = _needs_half_tables(index)
            options.shard, options.shard_type = True, _BY_ENTRY
            copy = faiss.index_cpu_to_gpus_list(index, options, numbers)
        if not isinstance(copy, kind):
            raise RuntimeError(f"GPUs have no {type(index).__name__}")
        return copy
    except RuntimeError as error:
        logger.warning(f"faiss searches on the CPU, for it cannot put this index on the GPU: {reason(error)}")
        return None


def _needs_half_tables(index: faiss.Index) -> bool:
    """Whether a GPU needs the tables of a product quantiser in float16: in float32 they exceed its shared memory."""
    return isinstance(index, faiss.IndexIVFPQ) and 4 * index.pq.M * index.pq.ksub > _TABLE_BYTES
