"""Inverted lists that stay on disk, in a file of their own beside the index.

The file holds, for one list after another, the codes and then the ids of its entries, as
``faiss.OnDiskInvertedLists`` reads them. It is written front to back, from parts that are memory mapped, so that it may
be larger than memory.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
from tqdm import tqdm

from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.record import Written
from fairseq_knn.storage.atomic import atomic_path

logger = logging.getLogger(__name__)

_BUFFER = 8 << 20  # bytes written at once
# What has the codes of an entry, whole, in its lists, and nothing beside them.
_KINDS = (faiss.IndexIVFFlat, faiss.IndexIVFPQ, faiss.IndexIVFScalarQuantizer, faiss.IndexIVFRaBitQ)


def require_lists_for_disk(index: faiss.Index, factory: str) -> None:
    """
    Raises:
        SearchIndexError: the index is no inverted file, or its lists cannot be on disk.
    """
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if not isinstance(inner, _KINDS) or isinstance(inner, faiss.IndexIVFPQR):
        raise SearchIndexError(
            f"the lists of {factory} cannot stay on disk, which needs an inverted file with plain codes and without "
            "Refine: pass --knn-index auto, or a factory string such as IVF4096,SQ8, or leave out --on-disk"
        )


def write_lists(parts: Sequence[faiss.Index], path: Path, *, quiet: bool) -> Written:
    """Write the lists of several indexes as one, atomically.

    Args:
        parts: the same trained index with consecutive ranges of entries, whose ids begin with 0 in each.
        path: of the file.
        quiet: without a progress bar.

    Raises:
        UserError: the disk is full or the place not writable.
    """
    lists = [faiss.extract_index_ivf(part).invlists for part in parts]
    starts = np.cumsum([0, *(part.ntotal for part in parts)])
    code_size, digest, size = lists[0].code_size, hashlib.sha256(), 0
    with atomic_path(path) as temporary, temporary.open("wb", buffering=_BUFFER) as file:
        for number in tqdm(range(lists[0].nlist), desc="lists", unit="", disable=quiet):
            lengths = [each.list_size(number) for each in lists]
            blocks = [_codes(each, number, length * code_size) for each, length in zip(lists, lengths, strict=True)]
            blocks += [
                _ids(each, number, length) + start
                for each, length, start in zip(lists, lengths, starts[:-1], strict=True)
            ]
            for block in blocks:
                digest.update(block.data)
                size += file.write(block.data)
    return Written(bytes=size, sha256=digest.hexdigest())


def _codes(lists: faiss.InvertedLists, number: int, size: int) -> np.ndarray:
    empty: np.ndarray = np.empty(0, np.uint8)
    return faiss.rev_swig_ptr(lists.get_codes(number), size) if size else empty


def _ids(lists: faiss.InvertedLists, number: int, length: int) -> np.ndarray:
    empty: np.ndarray = np.empty(0, np.int64)
    return faiss.rev_swig_ptr(lists.get_ids(number), length) if length else empty


def list_sizes(parts: Sequence[faiss.Index]) -> np.ndarray:
    """Entries in every list of several indexes together, (lists,)."""
    lists = [faiss.extract_index_ivf(part).invlists for part in parts]
    return np.array([sum(each.list_size(number) for each in lists) for number in range(lists[0].nlist)], np.uint64)


def attach_lists(index: faiss.Index, path: Path, sizes: np.ndarray) -> None:
    """Give an index the lists that :func:`write_lists` wrote, memory mapped, in the place of its own.

    Args:
        index: trained as they are.
        path: of the file.
        sizes: entries in every list, uint64 (lists,).
    """
    inverted = faiss.extract_index_ivf(index)
    lists = faiss.OnDiskInvertedLists(inverted.nlist, inverted.code_size, str(path))
    lists.read_only = True
    lists.set_all_lists_sizes(faiss.swig_ptr(sizes))
    lists.totsize = path.stat().st_size
    lists.do_mmap()
    inverted.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = inverted.ntotal = int(sizes.sum())


def name_lists(index: faiss.Index, name: str) -> None:
    """Set the name of the lists' file that is written into the index; it is looked for in the index's directory."""
    faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists).filename = name


def read_lists(index: faiss.Index, path: Path) -> None:
    """Read lists that are on disk into memory, if they fit there.

    Args:
        index: whose lists.
        path: of the index, for messages.
    """
    inverted = faiss.extract_index_ivf(index)
    stored = faiss.downcast_InvertedLists(inverted.invlists)
    free = _free_memory()
    if stored.totsize > free:
        logger.warning(
            f"the lists of {path} have {stored.totsize / 1e9:,.1f} GB, more than the {free / 1e9:,.1f} GB of memory "
            "that are free: they stay on disk, memory mapped"
        )
        return
    lists = faiss.ArrayInvertedLists(stored.nlist, stored.code_size)
    for number in range(stored.nlist):
        if length := stored.list_size(number):
            lists.add_entries(number, length, stored.get_ids(number), stored.get_codes(number))
    inverted.replace_invlists(lists, True)
    lists.this.disown()


def _free_memory() -> int:
    """Bytes that are free, or that the system frees when they are needed."""
    known = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    assert known is not None
    return 1024 * int(known[1])
