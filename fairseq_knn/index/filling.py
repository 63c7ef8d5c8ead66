"""Filling an index with the keys of a datastore, resumably."""

import re
import time
from collections.abc import Callable

import faiss
import numpy as np
from tqdm import tqdm

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index.checkpoint import Checkpoint
from fairseq_knn.index.faiss_files import explain_faiss_errors, reason
from fairseq_knn.index.record import IndexSettings
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
    say: Report,
    *,
    quiet: bool,
) -> tuple[faiss.Index, str]:
    """Train an index and add all keys, or go on where the checkpoint is.

    Args:
        datastore: whose keys are added, each file compared with its checksum.
        settings: what is being built.
        empty: the untrained index.
        checkpoint: where it is saved on the way and in the end.
        say: called with a line about every step.
        quiet: without a progress bar.

    Returns:
        the index with all keys, and the SHA-256 of its file.

    Raises:
        SearchIndexError: faiss cannot train with the sample or take the keys.
        DatastoreError: a file of keys is damaged.
        UserError: the disk is full.
    """
    name = f"{settings.factory} for {settings.entries:,} keys of dimension {settings.dimension}"
    index = checkpoint.load()
    try:
        if index is None:
            say(f"building {name}")
            index = empty
            if settings.train_size:
                say(f"training with {settings.train_size:,} keys")
                _train(index, datastore, settings)
                checkpoint.save(index)
        else:
            say(f"going on with {name}: {index.ntotal:,} are in it")
        _add(index, datastore, settings, checkpoint, quiet)
    except DatastoreError:
        checkpoint.remove()  # it may be trained with damaged keys
        raise
    return index, checkpoint.save(index)


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


def _add(
    index: faiss.Index, datastore: Datastore, settings: IndexSettings, checkpoint: Checkpoint, quiet: bool
) -> None:
    """Add the keys that are not in the index yet, shard by shard, each compared with its checksum."""
    rows = rows_of(_CHUNK_BYTES, 4 * datastore.dimension)
    saved, interval = time.monotonic(), _CHECKPOINT_SECONDS
    first = 0
    with tqdm(total=datastore.entries, initial=index.ntotal, desc="keys", unit="", disable=quiet) as bar:
        for shard, entries in enumerate(datastore.shard_entries):
            last = first + entries
            if index.ntotal < last:
                datastore.verify_keys(shard)
            while index.ntotal < last:
                keys = datastore.keys(index.ntotal, min(index.ntotal + rows, last))
                with explain_faiss_errors(f"add keys to {settings.factory}", "pass another --knn-index"):
                    index.add(keys.astype(np.float32))
                bar.update(len(keys))
                started = time.monotonic()
                if started - saved > interval and index.ntotal < datastore.entries:
                    checkpoint.save(index)
                    saved = time.monotonic()
                    interval = max(_CHECKPOINT_SECONDS, 10 * (saved - started))
            first = last
