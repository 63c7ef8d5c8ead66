"""Reading a finished datastore of this package."""

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.layout import ARRAYS, array_path, dropped_path, manifest_path, plan_path
from fairseq_knn.datastore.manifest import Manifest, Plan, array_names
from fairseq_knn.datastore.npy import map_npy
from fairseq_knn.datastore.sharded_array import ShardedArray
from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.storage.atomic import read_json
from fairseq_knn.storage.digest import file_digest, short


class ShardedDatastore(Datastore):
    """A finished datastore as :class:`~fairseq_knn.datastore.DatastoreWriter` writes it.

    Its entries are in the order (sentence, position). Values, sentences and positions are read as a whole when they are
    first used.

    Args:
        path: its directory.
        manifest: its manifest.
        dropped: names of the arrays that were deleted on purpose.
        sample_digest: SHA-256 of the file with the few keys that were kept.
    """

    def __init__(
        self, path: Path, manifest: Manifest, dropped: frozenset[str] = frozenset(), sample_digest: str = ""
    ) -> None:
        super().__init__(path, [shard.entries for shard in manifest.shards], manifest.dimension, np.float16)
        self.manifest = manifest
        self._dropped = dropped
        self.sample_digest = sample_digest

    @classmethod
    def open(cls, path: Path, *, check_files: bool = True) -> "ShardedDatastore":
        """Open a datastore and check that all its files are there in full size.

        Args:
            path: its directory.
            check_files: whether to; without it only the manifest is read.

        Raises:
            DatastoreError: see :meth:`Datastore.load <fairseq_knn.datastore.Datastore.load>`.
        """
        source = manifest_path(path)
        try:
            datastore = cls(path, Manifest.from_json(read_json(source), str(source)), *dropped_arrays(path))
        except (FileNotFoundError, NotADirectoryError):
            if plan_path(path).exists():
                raise DatastoreError(
                    f"the datastore {path} is unfinished: run the command that builds it again, and after a "
                    f"build by several ranks `fairseq-knn merge {path}`"
                ) from None
            raise DatastoreError(
                f"there is no datastore in {path}: build one with --knn-mode build_datastore or correct "
                "--knn-datastore-path"
            ) from None
        except UserError as error:
            raise DatastoreError(str(error)) from error
        if check_files:
            datastore._check_files()
        return datastore

    def _check_files(self) -> None:
        for shard, record in enumerate(self.manifest.shards):
            for name, array in record.arrays.items():
                if name in self._dropped:
                    continue
                file = array_path(self.path, name, shard)
                try:
                    fault = size_fault(file, array.bytes)
                except PermissionError as error:
                    raise DatastoreError(f"{file} cannot be read ({error.strerror}): mend its permissions") from error
                if fault:
                    raise self._damaged(f"{file.name} {fault}")

    def arrays(self) -> Iterator[tuple[int, str, int]]:
        """Every array file there is, as (shard, name, bytes)."""
        for shard, record in enumerate(self.manifest.shards):
            for name in ARRAYS:
                if name in record.arrays and name not in self._dropped:
                    yield shard, name, record.arrays[name].bytes

    def verify(self, shard: int, name: str) -> None:
        """Compare a file with the checksum taken when it was written.

        Raises:
            DatastoreError: they differ.
        """
        record = self.manifest.shards[shard].arrays.get(name)
        file = array_path(self.path, name, shard)
        if record is not None and (found := file_digest(file)) != record.sha256:
            raise self._damaged(f"{file.name} has checksum {short(found)} instead of {short(record.sha256)}")

    def verify_keys(self, shard: int) -> None:
        self.require_keys()
        self.verify(shard, "keys")

    def _damaged(self, what: str) -> DatastoreError:
        return DatastoreError(
            f"the datastore {self.path} is damaged: {what}; restore the file, or build the datastore again "
            "with --knn-overwrite"
        )

    @property
    def plan(self) -> Plan:
        return self.manifest.plan

    @property
    def key(self) -> str:
        return self.manifest.plan.key

    @property
    def dropped(self) -> frozenset[str]:
        """Names of the arrays that were deleted on purpose."""
        return self._dropped

    @property
    def has_keys(self) -> bool:
        return "keys" not in self._dropped

    @property
    def array_bytes(self) -> dict[str, int]:
        sizes = dict.fromkeys(array_names(self.manifest.shards), 0)
        for _, name, size in self.arrays():
            sizes[name] += size
        return sizes

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest, hence (it holds all checksums) of the whole content."""
        return file_digest(manifest_path(self.path))

    @cached_property
    def values(self) -> np.ndarray:
        """Target token of every entry, (N,), read into memory and verified."""
        for shard in range(len(self.manifest.shards)):
            self.verify(shard, "values")
        return self._read("values")

    @cached_property
    def sentences(self) -> np.ndarray:
        """Index of every entry's sentence in its split, (N,)."""
        return self._read("sentences")

    @cached_property
    def positions(self) -> np.ndarray:
        """Position of every entry in its target sentence, (N,)."""
        return self._read("positions")

    @cached_property
    def log_probs(self) -> ShardedArray | None:
        if any("log_probs" not in shard.arrays for shard in self.manifest.shards if shard.entries):
            return None
        return self._mapped("log_probs", np.float32)

    @cached_property
    def documents(self) -> np.ndarray | None:
        """Number of every entry's document, (N,); ``None`` if that was not stored."""
        if any("documents" not in shard.arrays for shard in self.manifest.shards if shard.entries):
            return None
        return self._read("documents")

    @cached_property
    def continues(self) -> np.ndarray | None:
        sentences, documents = self.sentences, self.documents
        steps = np.diff(sentences)
        # Between two blocks that do not follow each other something was left out: the next token is missing.
        follows = steps == 0 if documents is None else (steps <= 1) & (np.diff(documents) == 0)
        return np.append(follows, False)

    @cached_property
    def _mapped_sentences(self) -> ShardedArray:
        return self._mapped("sentences", np.int64)

    def _mapped(self, name: str, dtype: type) -> ShardedArray:
        return ShardedArray(
            self.shard_entries,
            (),
            dtype,
            partial(self.shard_array, name),
            lambda shard: self.verify(shard, name),
        )

    def entry_ids(self, sentences: np.ndarray) -> np.ndarray:
        result = super().entry_ids(sentences)
        flat, wanted = result.reshape(-1), np.asarray(sentences).reshape(-1)
        inside = (wanted >= 0) & (wanted < self.plan.sentences)
        shards = np.where(inside, wanted // self.plan.shard_sentences, -1)
        for shard in np.unique(shards[inside]):
            if not self.shard_entries[shard]:
                continue
            stored = self._mapped_sentences.shard(int(shard))
            chosen = np.flatnonzero(shards == shard)
            # Of the type of what is stored: numpy would convert that, all of it, to the other's.
            asked = wanted[chosen].astype(stored.dtype)
            rows = np.searchsorted(stored, asked)
            there = stored[np.minimum(rows, len(stored) - 1)] == asked
            flat[chosen[there]] = self._mapped_sentences.starts[shard] + rows[there]
        return result

    def shard_array(self, name: str, shard: int) -> np.ndarray:
        """One array of a shard that has entries, memory mapped."""
        return map_npy(array_path(self.path, name, shard))

    def _read(self, name: str) -> np.ndarray:
        shards = [shard for shard, entries in enumerate(self.shard_entries) if entries]
        return np.concatenate([np.load(array_path(self.path, name, shard)) for shard in shards])

    def _open_keys(self, shard: int) -> np.ndarray:
        return self.shard_array("keys", shard)


def size_fault(file: Path, expected: int) -> str:
    """What is wrong if a file does not have *expected* bytes, else nothing.

    Raises:
        PermissionError: its size may not be asked for.
    """
    try:
        size = file.stat().st_size
    except PermissionError:
        raise
    except OSError:
        return "is missing"
    return "" if size == expected else f"has {size:,} bytes instead of {expected:,}"


def dropped_arrays(path: Path) -> tuple[frozenset[str], str]:
    """Names of the arrays that were deleted on purpose, and the digest of what was kept of them."""
    try:
        content = read_json(dropped_path(path))
        return frozenset(content["arrays"]), str(content["sample"])
    except FileNotFoundError:
        return frozenset(), ""
    except (KeyError, TypeError) as error:
        raise DatastoreError(
            f"{dropped_path(path)} does not say which arrays were dropped: build the datastore again"
        ) from error
