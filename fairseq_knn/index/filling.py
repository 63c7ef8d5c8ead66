"""Training an index and filling it with the keys of a datastore, resumably."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np
from tqdm import tqdm

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index.checkpoint import Checkpoint
from fairseq_knn.index.faiss_files import explain_faiss_errors, reason
from fairseq_knn.index.record import IndexSettings, Written
from fairseq_knn.index.sampling import sample_entries
from fairseq_knn.index.stored_keys import rows_of

Report = Callable[[str], object]

_CHUNK_BYTES = 64 << 20  # of float32 keys that are added at once
# A checkpoint is due after this time, and after ten times what the last one took to write.
_CHECKPOINT_SECONDS = 300.0
# What faiss says when there are not enough keys to train with.
_TOO_FEW = re.compile(r"training points \((\d+)\) should be at least as large as number of clusters \((\d+)\)")


def fill(
    datastore: Datastore,
    settings: IndexSettings,
    empty: faiss.Index,
    checkpoint: Checkpoint,
    trained: Checkpoint,
    say: Report,
    *,
    quiet: bool,
) -> tuple[faiss.Index, Written]:
    """Train an index and add all keys, or go on where the checkpoint is.

    Args:
        datastore: whose keys are added, each file compared with its checksum.
        settings: what is being built.
        empty: the untrained index.
        checkpoint: where it is saved on the way and in the end.
        trained: the trained index, if it was trained alone.
        say: called with a line about every step.
        quiet: without a progress bar.

    Returns:
        the index with all keys, and its file.

    Raises:
        SearchIndexError: faiss cannot train with the sample or take the keys.
        DatastoreError: a file of keys is damaged.
        UserError: the disk is full.
    """
    name = describe(settings)
    index = checkpoint.load()
    with without_damaged_keys(checkpoint, trained):
        if index is None:
            say(f"building {name}")
            index = trained.load()
            if index is None:
                index = empty
                if settings.train_size:
                    say(f"training with {settings.train_size:,} keys")
                    _train(index, datastore, settings)
                    checkpoint.save(index)
        else:
            say(f"going on with {name}: {index.ntotal:,} are in it")
        add_keys(index, datastore, range(datastore.entries), settings.factory, checkpoint, quiet=quiet)
    return index, checkpoint.finish(index)


def train(
    datastore: Datastore, settings: IndexSettings, empty: faiss.Index, trained: Checkpoint, say: Report
) -> Written:
    """Train an index and keep it without keys; if that was done before, nothing is done.

    Args:
        datastore, settings, empty, trained, say: see :func:`fill`.

    Raises:
        SearchIndexError, DatastoreError, UserError: see :func:`fill`.
    """
    if (written := trained.written) is not None:
        return written
    say(f"training {describe(settings)}, with {settings.train_size:,} of them")
    with without_damaged_keys(trained):
        if settings.train_size:
            _train(empty, datastore, settings)
        return trained.finish(empty)


def describe(settings: IndexSettings) -> str:
    """What is being built, for messages."""
    return f"{settings.factory} for {settings.entries:,} keys of dimension {settings.dimension}"


@contextlib.contextmanager
def without_damaged_keys(*kept: Checkpoint) -> Iterator[None]:
    """Delete what may hold, or be trained with, keys that turn out to be damaged."""
    try:
        yield
    except DatastoreError:
        for checkpoint in kept:
            checkpoint.remove()
        raise


def _train(index: faiss.Index, datastore: Datastore, settings: IndexSettings) -> None:
    sample = sample_entries(datastore.entries, settings.train_size, settings.seed)
    try:
        index.train(datastore.gather_keys(sample).astype(np.float32))
    except RuntimeError as error:
        if few := _TOO_FEW.search(str(error)):
            raise SearchIndexError(
                f"{settings.factory} needs at least {int(few[2]):,} keys to train with, and the sample from "
                f"{datastore.path} ({datastore.entries:,} entries) has {int(few[1]):,}: pass --knn-index auto, fewer "
                "lists, or a larger --train-size"
            ) from error
        for shard in range(len(datastore.shard_entries)):
            datastore.verify_keys(shard)  # damaged keys may be the reason
        raise SearchIndexError(
            f"faiss cannot train {settings.factory} with {len(sample):,} keys ({reason(error)}): pass another "
            "--knn-index"
        ) from error


def add_keys(
    index: faiss.Index,
    datastore: Datastore,
    entries: range,
    factory: str,
    checkpoint: Checkpoint,
    *,
    quiet: bool,
) -> None:
    """Add the keys of a range of entries that are not in the index yet, each file compared with its checksum.

    Args:
        index: holds the first ``ntotal`` of them.
        datastore: whose keys are added.
        entries: the range.
        factory: for messages.
        checkpoint: where the index is saved on the way.
        quiet: without a progress bar.

    Raises:
        SearchIndexError: faiss cannot take the keys.
        DatastoreError: a file of keys is damaged.
        UserError: the disk is full.
    """
    rows = rows_of(_CHUNK_BYTES, 4 * datastore.dimension)
    saved, interval = time.monotonic(), _CHECKPOINT_SECONDS
    first = 0
    with tqdm(total=len(entries), initial=index.ntotal, desc="keys", unit="", disable=quiet) as bar:
        for shard, size in enumerate(datastore.shard_entries):
            last = min(first + size, entries.stop)
            if first <= entries.start + index.ntotal < last:
                datastore.verify_keys(shard)
            while first <= (start := entries.start + index.ntotal) < last:
                keys = datastore.keys(start, min(start + rows, last))
                with explain_faiss_errors(f"add keys to {factory}", "pass another --knn-index"):
                    index.add(keys.astype(np.float32))
                bar.update(len(keys))
                started = time.monotonic()
                if started - saved > interval and index.ntotal < len(entries):
                    checkpoint.save(index)
                    saved = time.monotonic()
                    interval = max(_CHECKPOINT_SECONDS, 10 * (saved - started))
            first += size
