"""Reading a finished datastore."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import array_path, manifest_path, plan_path
from fairseq_knn.datastore.manifest import Manifest, ShardRecord
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.atomic import read_json
from fairseq_knn.storage.digest import file_digest, short


class Datastore:
    """A finished datastore of N entries with keys of dimension d.

    Entry ``i`` (0 <= i < N) is the i-th in the order (sentence, position). Keys stay on disk (memory
    mapped) until they are asked for.

    Args:
        path: its directory.
        manifest: its manifest.
    """

    def __init__(self, path: Path | str, manifest: Manifest) -> None:
        self.path = Path(path)
        self.manifest = manifest
        self._starts = np.cumsum([0] + [shard.entries for shard in manifest.shards])

    @classmethod
    def load(cls, path: Path | str) -> "Datastore":
        """Open a datastore and check that all its files are there in full size.

        Raises:
            DatastoreError: there is none, it is unfinished, a file is missing or truncated, or a newer
                version of this package wrote it.
        """
        root = Path(path)
        try:
            content = read_json(manifest_path(root))
        except (FileNotFoundError, NotADirectoryError):
            if plan_path(root).exists():
                raise DatastoreError(
                    f"the datastore {root} is unfinished: run the command that builds it again, and after a build "
                    f"by several ranks `fairseq-knn merge {root}`"
                ) from None
            raise DatastoreError(
                f"there is no datastore in {root}: build one with --knn-mode build_datastore or correct "
                "--knn-datastore-path"
            ) from None
        datastore = cls(root, Manifest.from_json(content, str(manifest_path(root))))
        datastore._check_files()
        return datastore

    def _check_files(self) -> None:
        for shard, record in enumerate(self.manifest.shards):
            for name, array in record.arrays.items():
                file = array_path(self.path, name, shard)
                size = file.stat().st_size if file.exists() else None
                if size != array.bytes:
                    state = "is missing" if size is None else f"has {size:,} bytes instead of {array.bytes:,}"
                    raise DatastoreError(
                        f"the datastore {self.path} is damaged: {file.name} {state}; restore the file, or build the "
                        "datastore again with --knn-overwrite"
                    )

    def verify(self, shard: int, name: str) -> None:
        """Compare a file with the checksum taken when it was written.

        Raises:
            DatastoreError: they differ.
        """
        record = self.manifest.shards[shard].arrays.get(name)
        file = array_path(self.path, name, shard)
        if record is not None and (found := file_digest(file)) != record.sha256:
            raise DatastoreError(
                f"the datastore {self.path} is damaged: {file.name} has checksum {short(found)} instead of "
                f"{short(record.sha256)}; restore the file, or build the datastore again with --knn-overwrite"
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

    @cached_property
    def _key_maps(self) -> dict[int, np.ndarray]:
        return {shard: np.load(array_path(self.path, "keys", shard), mmap_mode="r") for shard, _ in self._stored()}

    def keys(self, start: int, stop: int) -> np.ndarray:
        """Keys of the entries ``[start, stop)`` in memory, float16 (stop - start, d)."""
        stop = min(stop, self.entries)
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self._starts[shard]), int(self._starts[shard + 1])
            if end > start:
                parts.append(self._key_maps[shard][start - base : min(stop, end) - base])
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
            result[chosen] = self._key_maps[int(shard)][entries[chosen] - self._starts[shard]]
        return result

    def __repr__(self) -> str:
        return f"Datastore({str(self.path)!r}, entries={self.entries}, dimension={self.dimension})"
