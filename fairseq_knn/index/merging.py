"""One index out of several with the same training, as if one process had added all keys."""

from collections.abc import Iterable

import faiss
import numpy as np

from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.faiss_files import explain_faiss_errors, reason


def require_mergeable(index: faiss.Index, factory: str) -> None:
    """
    Raises:
        SearchIndexError: faiss cannot merge indexes of this kind.
    """
    try:
        for each in _leaves(index):
            # All inverted files can be merged, and faiss compares what untrained ones do not have.
            if not isinstance(each, faiss.IndexIVF):
                each.check_compatible_for_merge(each)
    except RuntimeError as error:
        raise SearchIndexError(
            f"{factory} cannot be built in parts, for faiss {faiss.__version__} cannot merge such indexes "
            f"({reason(error)}): leave out --num-shards, or pass --knn-index auto"
        ) from error


def merge_indexes(parts: Iterable[faiss.Index], factory: str) -> faiss.Index:
    """Merge indexes of consecutive ranges of entries, of which each is emptied.

    Args:
        parts: in the order of their entries; each is asked for when the one before it is merged.
        factory: for messages.

    Returns:
        the index, byte for byte that of one process that added all keys.

    Raises:
        SearchIndexError: faiss refuses.
    """
    remaining = iter(parts)
    merged = next(remaining)
    for part in remaining:
        with explain_faiss_errors(f"merge parts of {factory}", "pass another --knn-index"):
            _merge(merged, part)
    for leaf in _leaves(merged):
        if isinstance(leaf, faiss.IndexIVFFastScan):
            _clear_padding(leaf)
    return merged


def _leaves(index: faiss.Index) -> list[faiss.Index]:
    """What holds codes: the index itself, or what is below transforms and re-ranking."""
    known = faiss.downcast_index(index)
    if isinstance(known, faiss.IndexRefine):
        return [*_leaves(known.base_index), *_leaves(known.refine_index)]
    if isinstance(known, faiss.IndexPreTransform):
        return _leaves(known.index)
    return [known]


def _merge(index: faiss.Index, part: faiss.Index) -> None:
    for one, other in zip(_leaves(index), _leaves(part), strict=True):
        if isinstance(one, faiss.IndexIVFFastScan):
            _append_whole_blocks(one, other)
        # Without lists, an entry's place is its id.
        one.merge_from(other, one.ntotal if isinstance(one, faiss.IndexIVF) else 0)
    _count(index)


def _count(index: faiss.Index) -> int:
    """Set the number of entries from the bottom up."""
    known = faiss.downcast_index(index)
    if isinstance(known, faiss.IndexRefine):
        known.ntotal = _count(known.base_index)
    elif isinstance(known, faiss.IndexPreTransform):
        known.ntotal = _count(known.index)
    return int(known.ntotal)


def _append_whole_blocks(index: faiss.IndexIVFFastScan, part: faiss.IndexIVFFastScan) -> None:
    """Move the lists of *part* that begin a new block in those of *index*.

    faiss 1.15 copies too much, beyond the end of the list, where a list that is appended to has as many entries as a
    block has bytes, or a multiple of that; such a list ends with a whole block.
    """
    lists, others = faiss.downcast_InvertedLists(index.invlists), faiss.downcast_InvertedLists(part.invlists)
    per_block, block_bytes, ntotal = lists.n_per_block, lists.block_size, index.ntotal
    for number in range(lists.nlist):
        before, added = lists.list_size(number), others.list_size(number)
        if not before or not added or before % per_block:
            continue
        lists.resize(number, before + added)
        start, blocks = before // per_block, -(-added // per_block)
        codes = faiss.rev_swig_ptr(lists.get_codes(number), (start + blocks) * block_bytes)
        codes[start * block_bytes :] = faiss.rev_swig_ptr(others.get_codes(number), blocks * block_bytes)
        ids = faiss.rev_swig_ptr(lists.get_ids(number), before + added)
        ids[before:] = faiss.rev_swig_ptr(others.get_ids(number), added) + ntotal
        others.resize(number, 0)


def _clear_padding(index: faiss.IndexIVFFastScan) -> None:
    """Zero the unused places of every list's last block, which are never searched but are written to the file."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    nothing: np.ndarray = np.zeros(lists.packer.code_size, np.uint8)
    zeros, packer, per_block = faiss.swig_ptr(nothing), lists.packer, lists.n_per_block
    for number in range(lists.nlist):
        length = lists.list_size(number)
        if used := length % per_block:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), -(-length // per_block) * lists.block_size)
            block = faiss.swig_ptr(codes[-lists.block_size :])
            for place in range(used, per_block):
                packer.pack_1_c(zeros, place, block)
