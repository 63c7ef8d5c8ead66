"""Making a datastore of this package of one that another toolkit wrote."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.bare import MAKE_IT_AGAIN, BareDatastore
from fairseq_knn.datastore.manifest import Manifest, Plan
from fairseq_knn.datastore.writer import DatastoreWriter
from fairseq_knn.errors import DatastoreError

_BLOCK_BYTES = 64 << 20  # of keys read at a time


def sentence_lengths(values: np.ndarray, eos: int) -> np.ndarray:
    """How many entries every sentence has: each ends with its EOS.

    What follows the last EOS is a sentence too, unless it is all 0: adaptive-knn-mt makes room for more entries than
    there are, and 0 (``<s>``) is never a target.

    Args:
        values: target tokens in the order they are stored, (N,).
        eos: id of EOS.

    Returns:
        int64 (sentences,), summing to N or, without trailing zeros, less.
    """
    ends = np.flatnonzero(values == eos) + 1
    last = int(ends[-1]) if len(ends) else 0
    if values[last:].any():
        ends = np.append(ends, last + np.flatnonzero(values[last:])[-1] + 1)
    return np.diff(ends, prepend=0)


def filled_entries(source: BareDatastore) -> int:
    """How many entries there are before those at the end whose token and key are 0: room that was made and not used.

    Raises:
        DatastoreError: there are none.
    """
    filled = source.values[::-1] != 0
    first = source.entries - int(filled.argmax()) if filled.any() else 0  # from here on the tokens are 0
    rows = _block_rows(source)
    for end in range(source.entries, first, -rows):
        start = max(first, end - rows)
        there = np.flatnonzero(source.keys(start, end).any(axis=1))
        if len(there):
            return start + int(there[-1]) + 1
    if not first:
        raise DatastoreError(f"all entries of {source.path} are 0, so nothing was ever stored: {MAKE_IT_AGAIN}")
    return first


def key_errors(
    source: BareDatastore, lengths: np.ndarray, sentences: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """How far the keys of a few sentences are from what a model computes for them.

    Args:
        source: where they are stored.
        lengths: number of entries of each of its sentences.
        sentences: target tokens (n,) and hidden states (n, d) of each.

    Returns:
        distance relative to the length of the hidden states, (sentences,); +inf for one that is not stored.
    """
    wanted: dict[bytes, list[int]] = {}
    for number, (tokens, _) in enumerate(sentences):
        wanted.setdefault(tokens.astype(np.int32).tobytes(), []).append(number)
    errors = np.full(len(sentences), np.inf)
    starts = np.cumsum(lengths) - lengths
    possible = np.isin(lengths, [len(tokens) for tokens, _ in sentences])
    possible &= np.isin(source.values[np.minimum(starts, source.entries - 1)], [tokens[0] for tokens, _ in sentences])
    for sentence in np.flatnonzero(possible):
        start, stop = int(starts[sentence]), int(starts[sentence] + lengths[sentence])
        for number in wanted.get(source.values[start:stop].astype(np.int32).tobytes(), ()):
            # Of sentences with one translation and several sources the nearest is taken for the same.
            states = sentences[number][1].astype(np.float32)
            stored = source.keys(start, stop).astype(np.float32)
            error = np.linalg.norm(stored - states) / np.linalg.norm(states)
            errors[number] = min(errors[number], error)
    return errors


def convert(
    source: BareDatastore,
    path: Path,
    plan: Plan,
    lengths: np.ndarray,
    *,
    documents: np.ndarray | None = None,
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda _: None,
) -> Manifest:
    """Copy the entries of *source* into a datastore of this package; an interrupted call can be repeated.

    Args:
        source: where they are.
        path: directory of the new datastore.
        plan: what it will say of itself.
        lengths: number of entries of each of its sentences (:func:`sentence_lengths`) or blocks.
        documents: of a language model's, number of the document of every entry, integers (N,), ascending.
        overwrite: replace a finished datastore.
        advance: called with the number of entries done.

    Raises:
        DatastoreError: keys are not finite in float16, or see :class:`~fairseq_knn.datastore.DatastoreWriter`.
    """
    writer = DatastoreWriter(path, plan, overwrite=overwrite)
    ends = np.cumsum(lengths)
    rows = _block_rows(source)
    pending = writer.pending()
    advance(sum(int(lengths[slice(*plan.sentence_range(shard))].sum()) for shard in writer.own if shard not in pending))
    for shard in pending:
        first, last = plan.sentence_range(shard)
        part = writer.open_shard(shard)
        while first < last:
            start = int(ends[first] - lengths[first])
            stop = min(last, max(first + 1, int(np.searchsorted(ends, start + rows, side="right"))))
            end = int(ends[stop - 1])
            keys, values = source.keys(start, end), source.values[start:end]
            of_documents = None if documents is None else documents[start:end]
            part.add(range(first, stop), lengths[first:stop].tolist(), keys, values, documents=of_documents)
            advance(end - start)
            first = stop
        part.commit()
    manifest = writer.finish()
    assert manifest is not None  # this is the only process
    return manifest


def _block_rows(source: BareDatastore) -> int:
    return max(1, _BLOCK_BYTES // (source.dimension * np.dtype(source.key_dtype).itemsize))
