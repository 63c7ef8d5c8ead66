"""Writing a datastore: shard by shard, resumable at any point, by one process or by many."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import (
    ARRAYS,
    array_path,
    commit_path,
    index_path,
    index_record_path,
    manifest_path,
    plan_path,
    shards_directory,
)
from fairseq_knn.datastore.manifest import Manifest, Plan, ShardRecord
from fairseq_knn.datastore.npy import write_npy
from fairseq_knn.datastore.spool import KeySpool
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.atomic import (
    PARTIAL_SUFFIX,
    directory_lock,
    explain_os_errors,
    make_directory,
    partial_path,
    read_json,
    remove_partials,
    write_json,
)


class ShardWriter:
    """Collects the entries of one sentence range and commits them as one shard.

    Args:
        root: directory of the datastore.
        shard: number of the shard.
        first, last: the sentences it may hold, ``[first, last)``.
        vocabulary_size: decides the dtype of the values.
    """

    def __init__(self, root: Path, shard: int, first: int, last: int, vocabulary_size: int) -> None:
        self.root, self.shard, self.first, self.last = root, shard, first, last
        self._value_dtype = np.dtype(np.int32 if vocabulary_size < 2**31 else np.int64)
        self._spool = KeySpool(root, shard)
        self._dimension = 0
        self._runs: dict[int, tuple[int, int]] = {}
        self._values: dict[int, np.ndarray] = {}

    def add(self, sentences: Sequence[int], lengths: Sequence[int], keys: np.ndarray, values: np.ndarray) -> None:
        """Add whole sentences.

        Args:
            sentences: their indices in the split.
            lengths: number of target tokens of each.
            keys: float16 (sum of lengths, d), sentence after sentence.
            values: target token ids (sum of lengths,).

        Raises:
            DatastoreError: the keys are not finite in float16 (the message names the sentence).
        """
        finite = np.isfinite(keys).all(axis=1)
        row = self._spool.append(keys)
        self._dimension = keys.shape[1]
        offset = 0
        for sentence, length in zip(sentences, lengths, strict=True):
            if not finite[offset : offset + length].all():
                raise DatastoreError(
                    f"the model gives keys that are NaN or beyond the range of float16 for sentence {sentence}: "
                    "check the checkpoint, or run without --fp16"
                )
            self._runs[sentence] = (row + offset, length)
            self._values[sentence] = values[offset : offset + length].astype(self._value_dtype)
            offset += length

    @property
    def entries(self) -> int:
        """Entries added so far."""
        return sum(length for _, length in self._runs.values())

    def commit(self) -> ShardRecord:
        """Write the arrays ordered by (sentence, position), then the record that makes them count."""
        order = sorted(self._runs)
        lengths = np.array([self._runs[s][1] for s in order], dtype=np.int64)
        entries = int(lengths.sum())
        arrays = {}
        if entries:
            sentence_ids = np.array(order, dtype=np.int32 if self.last < 2**31 else np.int64)
            contents = {
                "keys": self._spool.read(self._runs[s] for s in order),
                "values": (self._values[s] for s in order),
                "sentences": iter((np.repeat(sentence_ids, lengths),)),
                "positions": (np.arange(length, dtype=np.int32) for length in lengths),
            }
            types = {
                "keys": np.dtype(np.float16),
                "values": self._value_dtype,
                "sentences": sentence_ids.dtype,
                "positions": np.dtype(np.int32),
            }
            for name in ARRAYS:
                shape = (entries, self._dimension) if name == "keys" else (entries,)
                arrays[name] = write_npy(array_path(self.root, name, self.shard), shape, types[name], contents[name])
        record = ShardRecord(
            entries=entries,
            dimension=self._dimension if entries else 0,
            sentences=len(order),
            skipped=self.last - self.first - len(order),
            value_dtype=self._value_dtype.name,
            arrays=arrays,
        )
        write_json(commit_path(self.root, self.shard), asdict(record))
        self.discard()
        return record

    def discard(self) -> None:
        """Delete the temporary file."""
        self._spool.close()


class DatastoreWriter:
    """One process's part in building a datastore.

    Process ``rank`` of ``world`` writes the shards ``i`` with ``i % world == rank``; a shard that is
    committed already is not written again. With one process :meth:`finish` writes the manifest, with
    several :func:`merge` does when all are done.

    Args:
        path: directory of the datastore.
        plan: what is to be built.
        rank, world: which part is this process's.
        overwrite: replace a finished datastore.

    Raises:
        DatastoreError: there is a finished datastore and *overwrite* is off, or an unfinished one of
            another plan, or the split has no sentences.
    """

    def __init__(
        self,
        path: Path | str,
        plan: Plan,
        *,
        rank: int = 0,
        world: int = 1,
        overwrite: bool = False,
    ):
        self.root, self.plan, self.rank, self.world = Path(path), plan, rank, world
        if plan.sentences == 0:
            raise DatastoreError(
                f"the split {plan.split!r} has no sentences, so there is nothing to put into {path}: "
                "check the data directory and --gen-subset"
            )
        make_directory(self.root)
        with directory_lock(self.root):
            self._prepare(overwrite)
        self._remove_leftovers()

    def _prepare(self, overwrite: bool) -> None:
        if manifest_path(self.root).exists():
            if not overwrite:
                raise DatastoreError(
                    f"{self.root} holds a finished datastore: choose another --knn-datastore-path, or pass "
                    "--knn-overwrite to replace it"
                )
            self._remove_finished()
        make_directory(shards_directory(self.root))
        path = plan_path(self.root)
        try:
            started = Plan(**read_json(path))
        except FileNotFoundError:
            write_json(path, asdict(self.plan))
            return
        except TypeError as error:
            raise DatastoreError(
                f"{path} is not the plan of a datastore: delete {self.root} and start again"
            ) from error
        if difference := started.difference(self.plan):
            raise DatastoreError(
                f"{self.root} holds an unfinished datastore of another plan ({difference}): finish it with the "
                "settings it was started with, delete it, or choose another --knn-datastore-path"
            )

    def _remove_finished(self) -> None:
        # The shards lose their name before the manifest goes: an interruption at any point leaves either a
        # finished datastore without files, which is replaced again, or nothing. Old shards are never
        # taken for new ones.
        trash = partial_path(shards_directory(self.root))
        with explain_os_errors(self.root):
            if shards_directory(self.root).exists():
                shards_directory(self.root).rename(trash)
            for stale in (index_record_path, index_path, manifest_path):
                stale(self.root).unlink(missing_ok=True)
            for leftover in self.root.glob(f".{trash.name.split('.')[1]}.*{PARTIAL_SUFFIX}"):
                shutil.rmtree(leftover)

    def _remove_leftovers(self) -> None:
        """Delete what this rank's interrupted runs left half-written."""
        for leftover in shards_directory(self.root).glob(f".*{PARTIAL_SUFFIX}"):
            number = leftover.name.partition("-")[2].partition(".")[0]
            if number.isdigit() and int(number) in self.own:
                leftover.unlink(missing_ok=True)

    @property
    def own(self) -> range:
        """Shards that are this process's to write."""
        return range(self.rank, self.plan.shards, self.world)

    def pending(self) -> list[int]:
        """Shards of this process that are not committed yet."""
        return [shard for shard in self.own if committed(self.root, shard) is None]

    def open_shard(self, shard: int) -> ShardWriter:
        """Start writing *shard*."""
        first, last = self.plan.sentence_range(shard)
        return ShardWriter(self.root, shard, first, last, self.plan.vocabulary_size)

    def finish(self) -> Manifest | None:
        """Write the manifest when this process was the only one; ``None`` when :func:`merge` has to."""
        return merge(self.root) if self.world == 1 else None


def committed(root: Path, shard: int) -> ShardRecord | None:
    """The record of a shard, or ``None`` when it is not committed or its files are not what was committed."""
    try:
        record = ShardRecord.from_json(read_json(commit_path(root, shard)))
    except FileNotFoundError:
        return None
    for name, array in record.arrays.items():
        path = array_path(root, name, shard)
        if not path.exists() or path.stat().st_size != array.bytes:
            return None
    return record


def merge(path: Path | str) -> Manifest:
    """Check that every shard is there and finish the datastore.

    Returns:
        the manifest, which is then on disk; a finished datastore's is returned as it is.

    Raises:
        DatastoreError: shards are missing (they are named), disagree, or hold no entry at all.
    """
    root = Path(path)
    try:
        plan = Plan(**read_json(plan_path(root)))
    except FileNotFoundError:
        raise DatastoreError(
            f"{root} holds no datastore, neither finished nor begun: build one with --knn-mode build_datastore"
        ) from None
    records = [committed(root, shard) for shard in range(plan.shards)]
    missing = [shard for shard, record in enumerate(records) if record is None]
    if missing:
        raise DatastoreError(
            f"{root} has {plan.shards - len(missing)} of {plan.shards} shards; missing: {_ranges(missing)}: run the "
            "build command again (for each rank that did not finish), then merge"
        )
    shards = tuple(record for record in records if record is not None)
    dimensions = {record.dimension for record in shards if record.entries}
    if not dimensions:
        raise DatastoreError(
            f"{root} has no entries: all {plan.sentences} sentences of {plan.split!r} were too long for the model; "
            "check --max-source-positions, --max-target-positions and the data"
        )
    if len(dimensions) > 1:
        raise DatastoreError(
            f"the shards of {root} have keys of different dimensions {sorted(dimensions)}: delete it and build it again"
        )
    manifest = Manifest(
        plan=plan,
        entries=sum(record.entries for record in shards),
        dimension=dimensions.pop(),
        key_dtype="float16",
        value_dtype=shards[0].value_dtype,
        skipped=sum(record.skipped for record in shards),
        shards=shards,
    )
    remove_partials(manifest_path(root))
    write_json(manifest_path(root), manifest.to_json())
    return manifest


def _ranges(numbers: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2, 5`` (Slurm's notation for array tasks)."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in parts)
