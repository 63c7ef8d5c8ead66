"""Reading a finished datastore."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import array_path, manifest_path, plan_path
from fairseq_knn.datastore.manifest import Manifest, ShardRecord
from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.storage.atomic import read_json
from fairseq_knn.storage.digest import file_digest, short

# A mapping holds its file open, and a process may have 1,024 open files (the usual limit). More shards
# than these are opened again whenever they are read.
_KEPT_MAPS = 512


class Datastore:
    """A finished datastore of N entries with keys of dimension d.

    Entry ``i`` (0 <= i < N) is the i-th in the order (sentence, position). Keys stay on disk (memory
    mapped) until they are asked for; the other arrays are read as a whole when they are first used.

    Args:
        path: its directory.
        manifest: its manifest.
    """

    def __init__(self, path: Path | str, manifest: Manifest) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self._key_maps: dict[int, np.ndarray] = {}
        self._starts = np.cumsum([0] + [shard.entries for shard in manifest.shards])

    @classmethod
    def load(cls, path: Path | str) -> "Datastore":
        """Open a datastore and check that all its files are there in full size.

        Raises:
            DatastoreError: there is none, it is unfinished, a file is missing, truncated or not to be
                read, or a newer version of this package wrote it.
        """
        root, source = Path(path), manifest_path(Path(path))
        try:
            datastore = cls(root, Manifest.from_json(read_json(source), str(source)))
        except (FileNotFoundError, NotADirectoryError):
            if plan_path(root).exists():
                raise DatastoreError(
                    f"the datastore {root} is unfinished: run the command that builds it again, and after a "
                    f"build by several ranks `fairseq-knn merge {root}`"
                ) from None
            raise DatastoreError(
                f"there is no datastore in {root}: build one with --knn-mode build_datastore or correct "
                "--knn-datastore-path"
            ) from None
        except UserError as error:
            raise DatastoreError(str(error)) from error
        datastore._check_files()
        return datastore

    def _check_files(self) -> None:
        for shard, record in enumerate(self.manifest.shards):
            for name, array in record.arrays.items():
                file = array_path(self.path, name, shard)
                try:
                    size = file.stat().st_size
                except PermissionError as error:
                    raise DatastoreError(f"{file} cannot be read ({error.strerror}): mend its permissions") from error
                except OSError:
                    raise self._damaged(f"{file.name} is missing") from None
                if size != array.bytes:
                    raise self._damaged(f"{file.name} has {size:,} bytes instead of {array.bytes:,}")

    def verify(self, shard: int, name: str) -> None:
        """Compare a file with the checksum taken when it was written.

        Raises:
            DatastoreError: they differ.
        """
        record = self.manifest.shards[shard].arrays.get(name)
        file = array_path(self.path, name, shard)
        if record is not None and (found := file_digest(file)) != record.sha256:
            raise self._damaged(f"{file.name} has checksum {short(found)} instead of {short(record.sha256)}")

    def _damaged(self, what: str) -> DatastoreError:
        return DatastoreError(
            f"the datastore {self.path} is damaged: {what}; restore the file, or build the datastore again "
            "with --knn-overwrite"
        )

    @property
    def entries(self) -> int:
        """Number of entries, N."""
        return self.manifest.entries

    @property
    def dimension(self) -> int:
        """Dimension of the keys, d."""
        return self.manifest.dimension

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

    def _read(self, name: str) -> np.ndarray:
        return np.concatenate([np.load(array_path(self.path, name, shard)) for shard, _ in self._stored()])

    def _stored(self) -> Iterator[tuple[int, ShardRecord]]:
        """Shards that have entries."""
        return ((i, record) for i, record in enumerate(self.manifest.shards) if record.entries)

    def _mapped_keys(self, shard: int) -> np.ndarray:
        """Keys of one shard, memory mapped; of the first shards asked for the mapping is kept."""
        keys = self._key_maps.get(shard)
        if keys is None:
            keys = np.load(array_path(self.path, "keys", shard), mmap_mode="r")
            if len(self._key_maps) < _KEPT_MAPS:
                self._key_maps[shard] = keys
        return keys

    def keys(self, start: int, stop: int) -> np.ndarray:
        """Keys of the entries ``[start, stop)`` in memory, float16 (stop - start, d)."""
        stop = min(stop, self.entries)
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self._starts[shard]), int(self._starts[shard + 1])
            if end > start:
                parts.append(self._mapped_keys(shard)[start - base : min(stop, end) - base])
                start = min(stop, end)
            shard += 1
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float16)

    def key_blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """All keys in order, at most *rows* at a time, as (first entry, float16 (n, d))."""
        for start in range(0, self.entries, rows):
            yield start, self.keys(start, start + rows)

    def gather_keys(self, entries: np.ndarray) -> np.ndarray:
        """Keys of the given entries in their order, float16 (n, d)."""
        result = np.empty((len(entries), self.dimension), np.float16)
        shards = np.searchsorted(self._starts, entries, side="right") - 1
        for shard in np.unique(shards):
            chosen = np.flatnonzero(shards == shard)
            # Increasing rows: one pass over the file instead of jumps.
            chosen = chosen[np.argsort(entries[chosen], kind="stable")]
            result[chosen] = self._mapped_keys(int(shard))[entries[chosen] - self._starts[shard]]
        return result

    def __repr__(self) -> str:
        return f"Datastore({str(self.path)!r}, entries={self.entries}, dimension={self.dimension})"
