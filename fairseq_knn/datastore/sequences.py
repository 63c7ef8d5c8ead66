"""Writing a datastore from sequences that come one after the other, without knowing where shards begin and end."""

import logging
import time
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.manifest import Plan
from fairseq_knn.datastore.shard_writer import ShardWriter
from fairseq_knn.datastore.writer import DatastoreWriter
from fairseq_knn.errors import DatastoreError

logger = logging.getLogger("fairseq_knn")

_SECONDS_BETWEEN_REPORTS = 10.0


class SequenceWriter:
    """One process's build, which begins or goes on.

    Args:
        path: directory of the datastore.
        plan: what it is to be; its sentences are the sequences.
        documents: of a language model, which document every sequence is of, int64 (N,).
        overwrite: replace a finished datastore.

    Attributes:
        first: the first sequence that is to come; those before it are in the datastore for good.
        entries: how many were added.

    Raises:
        DatastoreError, UserError: see :class:`~fairseq_knn.datastore.DatastoreWriter`.
    """

    def __init__(self, path: Path, plan: Plan, documents: np.ndarray | None, *, overwrite: bool) -> None:
        self._writer = DatastoreWriter(path, plan, overwrite=overwrite)
        self._plan, self._documents = plan, documents
        pending = self._writer.pending()  # one process commits shards in order
        self.first = self._next = plan.sentence_range(pending[0])[0] if pending else plan.sentences
        self._shard: ShardWriter | None = None
        self.entries = 0
        self._finished = False
        self._started = self._reported = time.monotonic()
        if self.first:
            logger.info(f"{self.first:,} of {plan.sentences:,} sequences are in {path} already")

    def add(self, lengths: list[int], keys: np.ndarray, values: np.ndarray, log_probs: np.ndarray) -> None:
        """Store the next sequences, in whatever shards they fall.

        Args:
            lengths: entries of each.
            keys: any float dtype (sum of lengths, d), sequence after sequence.
            values: target tokens (sum of lengths,).
            log_probs: natural logarithm of the probability the model gives each of these, (sum of lengths,).

        Raises:
            DatastoreError: there are more sequences than announced, or a key or log-probability is not finite.
        """
        if self._next + len(lengths) > self._plan.sentences:
            raise DatastoreError(
                f"there are more sequences than the {self._plan.sentences:,} that {self._writer.root} was announced to "
                f"hold: announce all, and leave out the first {self.first:,} (saver.stored), which it holds already"
            )
        row = 0
        for length in lengths:
            if self._shard is None:
                self._shard = self._writer.open_shard(self._next // self._plan.shard_sentences)
            rows = slice(row, row + length)
            documents = None
            if self._documents is not None:
                documents = np.full(length, self._documents[self._next], np.int64)
            if length:
                self._shard.add([self._next], [length], keys[rows], values[rows], log_probs[rows], documents)
            row += length
            self._next += 1
            self.entries += length
            if self._next == self._plan.sentence_range(self._shard.shard)[1]:
                self._commit()
        if time.monotonic() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._report("storing")

    def _commit(self) -> None:
        assert self._shard is not None
        record = self._shard.commit()
        self._report(f"shard {self._shard.shard} committed ({record.entries:,} entries)")
        self._shard = None

    def _report(self, what: str) -> None:
        self._reported = time.monotonic()
        elapsed = max(self._reported - self._started, 1e-9)
        left = elapsed / max(self._next - self.first, 1) * (self._plan.sentences - self._next)
        logger.info(
            f"{what} | {self._next:,}/{self._plan.sentences:,} sequences, {self.entries:,} entries, "
            f"{self.entries / elapsed:,.0f} entries/s, {int(left) // 60}:{int(left) % 60:02d} left"
        )

    def finish(self) -> None:
        """Complete the datastore; once more does nothing.

        Raises:
            DatastoreError: there were fewer sequences than announced. The shards that are complete are kept.
        """
        if self._finished:
            return
        if self._next < self._plan.sentences:
            if self._shard is not None:
                self._shard.discard()
                self._shard = None
            first = self._next // self._plan.shard_sentences * self._plan.shard_sentences
            raise DatastoreError(
                f"{self._writer.root} is unfinished, for {self._next:,} of the {self._plan.sentences:,} sequences it "
                f"was announced to hold have come: give it those from number {first:,} on, which saver.stored tells "
                "after another break_into()"
            )
        manifest = self._writer.finish()
        self._finished = True
        assert manifest is not None
        logger.info(
            f"datastore {self._writer.root} finished: {manifest.entries:,} entries of dimension {manifest.dimension}"
        )
