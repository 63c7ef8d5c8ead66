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
from fairseq_knn.datastore.reader import Datastore
from fairseq_knn.datastore.spool import KeySpool
from fairseq_knn.errors import DatastoreError, UserError
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
        vocabulary_size: values are below it; decides their dtype.
    """

    def __init__(self, root: Path, shard: int, first: int, last: int, vocabulary_size: int) -> None:
        self.root, self.shard, self.first, self.last = root, shard, first, last
        self._vocabulary_size = vocabulary_size
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
            keys: any float dtype (sum of lengths, d), sentence after sentence; stored as float16.
            values: target token ids (sum of lengths,).

        Raises:
            DatastoreError: the keys are not finite in float16 (the message names the sentence).
            ValueError: the arguments do not fit together, or not to this shard.
        """
        with np.errstate(over="ignore"):  # found below
            keys = keys.astype(np.float16, copy=False)
        self._check(sentences, lengths, keys, values)
        finite = np.isfinite(keys).all(axis=1)
        if not finite.all():
            owner = np.repeat(np.asarray(sentences), lengths)[np.argmin(finite)]
            raise DatastoreError(
                f"the model gives keys that are NaN or beyond the range of float16 for sentence {owner}: "
                "check the checkpoint, or run without --fp16"
            )
        row = self._spool.append(keys)
        self._dimension = keys.shape[1]
        offset = 0
        for sentence, length in zip(sentences, lengths, strict=True):
            self._runs[sentence] = (row + offset, length)
            self._values[sentence] = values[offset : offset + length].astype(self._value_dtype)
            offset += length

    def _check(self, sentences: Sequence[int], lengths: Sequence[int], keys: np.ndarray, values: np.ndarray) -> None:
        if not len(keys) == len(values) == sum(lengths):
            raise ValueError(f"{len(keys)} keys and {len(values)} values for sentences of {sum(lengths)} tokens")
        if self._runs and keys.shape[1] != self._dimension:
            raise ValueError(f"keys of dimension {keys.shape[1]} after keys of {self._dimension}")
        new = {s for s in sentences if self.first <= s < self.last and s not in self._runs}
        if len(new) < len(sentences):
            raise ValueError(
                f"shard {self.shard} holds each sentence of [{self.first}, {self.last}) once; given are "
                f"{list(sentences)}"
            )
        if len(values) and not 0 <= values.min() <= values.max() < self._vocabulary_size:
            raise ValueError(
                f"values from {values.min()} to {values.max()} are not all among the "
                f"{self._vocabulary_size} ids of the vocabulary"
            )

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
        UserError: the directory cannot be written.
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
                    f"{self.root} holds a finished datastore: choose another --knn-datastore-path, or "
                    "pass --knn-overwrite to replace it"
                )
            self._remove_finished()
        self._remove_trash()
        make_directory(shards_directory(self.root))
        path = plan_path(self.root)
        remove_partials(path)
        started = read_plan(self.root)
        if started is None:
            write_json(path, asdict(self.plan))
        elif difference := started.difference(self.plan):
            raise DatastoreError(
                f"{self.root} holds an unfinished datastore of another plan (the one begun against this "
                f"one: {difference}): finish it with the settings it was started with, delete it, or "
                "choose another --knn-datastore-path"
            )

    def _remove_finished(self) -> None:
        # The shards lose their name before the manifest goes: an interruption at any point leaves either a
        # finished datastore without files, which is replaced again, or nothing. Old shards are never
        # taken for new ones.
        with explain_os_errors(self.root):
            if shards_directory(self.root).exists():
                shards_directory(self.root).rename(partial_path(shards_directory(self.root)))
            for stale in (index_record_path, index_path):
                # With what interrupted runs have left of it: ".index.faiss.*".
                for file in self.root.glob(f"*{stale(self.root).name}*"):
                    file.unlink(missing_ok=True)
            manifest_path(self.root).unlink()

    def _remove_trash(self) -> None:
        """Delete the shards that an overwriting run, this one or an interrupted one, has put aside."""
        with explain_os_errors(self.root):
            for trash in self.root.glob(f".{shards_directory(self.root).name}.*{PARTIAL_SUFFIX}"):
                shutil.rmtree(trash)

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


def read_plan(root: Path) -> Plan | None:
    """The plan of the datastore that was begun in *root*, or ``None`` when none was.

    Raises:
        DatastoreError: the plan is damaged.
    """
    try:
        return Plan.from_json(read_json(plan_path(root)), str(plan_path(root)))
    except (FileNotFoundError, NotADirectoryError):
        return None


def committed(root: Path, shard: int) -> ShardRecord | None:
    """The record of a shard, or ``None`` when it is not committed or its files are not as committed."""
    commit = commit_path(root, shard)
    try:
        record = ShardRecord.from_json(read_json(commit), str(commit))
    except (FileNotFoundError, UserError):
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
        DatastoreError: shards are missing (they are named), disagree, or hold no entry at all; or the
            finished datastore is damaged.
    """
    root = Path(path)
    if manifest_path(root).exists():
        return Datastore.load(root).manifest
    plan = read_plan(root)
    if plan is None:
        raise DatastoreError(
            f"{root} holds no datastore, neither finished nor begun: build one with --knn-mode build_datastore"
        )
    records = [committed(root, shard) for shard in range(plan.shards)]
    missing = [shard for shard, record in enumerate(records) if record is None]
    if missing:
        raise DatastoreError(
            f"{root} has {plan.shards - len(missing)} of {plan.shards} shards; missing: "
            f"{_ranges(missing)}: run the build command again (for each rank that did not finish), then "
            "merge"
        )
    shards = tuple(record for record in records if record is not None)
    dimensions = {record.dimension for record in shards if record.entries}
    if not dimensions:
        raise DatastoreError(
            f"{root} has no entries: all {plan.sentences} sentences of {plan.split!r} were too long for "
            "the model; check --max-source-positions, --max-target-positions and the data, delete "
            f"{root} and build it again"
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
