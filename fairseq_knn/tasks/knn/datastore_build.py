"""Building a datastore while stock fairseq-generate scores the references."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.datastore import DatastoreWriter, Plan
from fairseq_knn.datastore.layout import manifest_path, shards_directory
from fairseq_knn.datastore.merging import committed
from fairseq_knn.datastore.shard_writer import ShardWriter
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.knn_decoder import Recording

logger = logging.getLogger("fairseq_knn")

NEEDS_REFERENCES = (
    "a datastore is made of reference translations, which --knn-mode build_datastore needs to be scored: run "
    "fairseq-generate with --score-reference"
)
_SECONDS_BETWEEN_REPORTS = 10.0


class DatastoreBuild:
    """Feeds the pending shards of a datastore to fairseq, in order, and stores what comes back.

    Nothing is written, or replaced, before :meth:`open`.

    Args:
        path: directory of the datastore.
        plan: what is built.
        padding: id of the padding symbol in the targets.
        rank, world: this process's part (``--distributed-rank``, ``--distributed-world-size``).
        overwrite: replace a finished datastore.
        documents: gives the numbers of the documents that the targets of a block are in, integers (T,); a language
            model's.
        beginning: token that blocks begin with, if they do; it is no entry.

    Attributes:
        left_out: sentences of the pending shards that the model cannot take.
    """

    def __init__(
        self,
        path: str,
        plan: Plan,
        padding: int,
        *,
        rank: int,
        world: int,
        overwrite: bool,
        documents: Callable[[int], np.ndarray] | None = None,
        beginning: int | None = None,
    ) -> None:
        self.plan = plan
        self._documents, self._beginning = documents, beginning
        self._root, self._rank, self._world, self._overwrite = Path(path), rank, world, overwrite
        self._padding = padding
        self._pending = self._find_pending()
        self._left: dict[int, int] = {}
        self.left_out = 0
        self._writer: DatastoreWriter | None = None
        self._shard: ShardWriter | None = None
        self._progress = BuildProgress()

    def _find_pending(self) -> list[int]:
        own = range(self._rank, self.plan.shards, self._world)
        replaced = self._overwrite and manifest_path(self._root).exists()
        if replaced or not shards_directory(self._root).is_dir():
            return list(own)
        return [shard for shard in own if committed(self._root, shard) is None]

    def open(self) -> None:
        """Prepare the directory, once it is sure that references will be scored.

        Raises:
            UserError: see :class:`~fairseq_knn.datastore.DatastoreWriter`.
        """
        self._writer = DatastoreWriter(
            self._root, self.plan, rank=self._rank, world=self._world, overwrite=self._overwrite
        )
        own, pending = len(self._writer.own), len(self._pending)
        part = f" (rank {self._rank} of {self._world})" if self._world > 1 else ""
        logger.info(
            f"datastore {self._root}{part}: {pending} of {own} shards to write"
            + (f", {own - pending} are there already" if own > pending else "")
        )

    @property
    def writer(self) -> DatastoreWriter:
        """Where the entries go.

        Raises:
            ConfigurationError: the program scores no references, so there will be no entries.
        """
        if self._writer is None:
            raise ConfigurationError(NEEDS_REFERENCES)
        return self._writer

    def batches(self, dataset: Any, order: np.ndarray, **limits: Any) -> list[list[int]]:
        """Batches of the pending shards, shard after shard, sorted by length within each.

        Args:
            dataset: the split.
            order: sentences the model can take, in the dataset's own order (int64 (n,)).
            limits: ``max_tokens``, ``max_sentences`` of a batch.
        """
        shards = order // self.plan.shard_sentences
        result: list[list[int]] = []
        for shard in self._pending:
            sentences = order[shards == shard]
            self._left[shard] = len(sentences)
            first, last = self.plan.sentence_range(shard)
            self.left_out += last - first - len(sentences)
            if len(sentences):
                batches = dataset.batch_by_size(sentences, required_batch_size_multiple=1, **limits)
                result.extend([int(i) for i in batch] for batch in batches)
        self._progress.start(sum(self._left.values()))
        return result

    @torch.no_grad()
    def add(self, recording: Recording, sample: dict[str, Any]) -> None:
        """Store a batch.

        Args:
            recording: of the decoder while stock's ``SequenceScorer`` scored the batch.
            sample: the batch, with ``id`` (B,) and ``target`` (B, T).
        """
        target, query = sample["target"], recording.states[-1]
        stored = self._stored(target)
        lengths = stored.sum(dim=1).tolist()
        values = target[stored].cpu().numpy()
        stored = stored.to(query.device)
        keys = query[stored].to(torch.float16).cpu().numpy()
        scored = torch.cat([part.flatten() for part in recording.target_log_probs]).view(target.shape)
        log_probs = scored[stored].cpu().numpy()
        ids: list[int] = sample["id"].tolist()
        number = ids[0] // self.plan.shard_sentences
        if self._shard is None:
            self._commit_empty(before=number)
            self._shard = self.writer.open_shard(number)
        documents = None
        if self._documents is not None:
            documents = np.concatenate([self._documents(number) for number in ids])
        self._shard.add(ids, lengths, keys, values, log_probs, documents)
        self._progress.update(len(ids), len(keys))
        self._left[number] -= len(ids)
        if self._left[number] == 0:
            self._commit()

    def _stored(self, target: Tensor) -> Tensor:
        """Which targets become entries, bool (B, T): all that are predicted from something."""
        stored = target.ne(self._padding)
        if self._beginning is not None:
            # With --add-bos-token the first target is the first input: nothing is predicted there.
            first = stored & (stored.cumsum(dim=1) == 1)
            stored &= ~(first & target.eq(self._beginning))
        return stored

    def finish(self) -> None:
        """Commit what is left and, when this process is the only one, finish the datastore."""
        self._commit_empty(before=self.plan.shards)
        manifest = self.writer.finish()
        if manifest is None:
            logger.info(
                f"rank {self._rank} has written its shards of {self._root}; when all {self._world} ranks have, run: "
                f"fairseq-knn merge {self._root}"
            )
        else:
            logger.info(
                f"datastore {self._root} finished: {manifest.entries:,} entries of dimension {manifest.dimension}"
            )

    def _commit_empty(self, before: int) -> None:
        """Shards whose sentences were all left out still count."""
        for shard in [s for s, left in self._left.items() if left == 0 and s < before]:
            if shard in self._pending:
                self._pending.remove(shard)
                self.writer.open_shard(shard).commit()

    def _commit(self) -> None:
        assert self._shard is not None
        record = self._shard.commit()
        self._pending.remove(self._shard.shard)
        self._progress.report(f"shard {self._shard.shard} committed ({record.entries:,} entries)")
        self._shard = None


class BuildProgress:
    """Entries per second and time left, in the log at least every few seconds."""

    def start(self, sentences: int) -> None:
        self._total, self._done, self._entries = sentences, 0, 0
        self._started = self._reported = time.monotonic()

    def update(self, sentences: int, entries: int) -> None:
        self._done += sentences
        self._entries += entries
        if time.monotonic() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self.report("building")

    def report(self, what: str) -> None:
        self._reported = time.monotonic()
        elapsed = max(self._reported - self._started, 1e-9)
        left = elapsed / self._done * (self._total - self._done)
        logger.info(
            f"{what} | {self._done:,}/{self._total:,} sentences, {self._entries:,} entries, "
            f"{self._entries / elapsed:,.0f} entries/s, {int(left) // 60}:{int(left) % 60:02d} left"
        )


def split_digest(dataset: Any) -> str:
    """What identifies a split: SHA-256 over the source and target length of every sentence."""
    sides = [getattr(dataset, side, None) for side in ("src_sizes", "tgt_sizes")]
    if sides[1] is None:
        sides = [np.array([dataset.size(i) for i in range(len(dataset))])]
    digest = hashlib.sha256()
    for side in sides:
        digest.update(np.ascontiguousarray(side, dtype=np.int64).tobytes())
    return digest.hexdigest()
