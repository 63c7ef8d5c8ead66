"""What a datastore gives, whatever its files look like."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.manifest import Plan
from fairseq_knn.errors import DatastoreError

# A mapping holds its file open, and a process may have 1,024 open files (the usual limit). More shards
# than these are opened again whenever they are read.
_KEPT_MAPS = 512


class Datastore(ABC):
    """N entries with keys of dimension d, on disk.

    Entry ``i`` (0 <= i < N) has a key and a value (the target token that followed). Keys stay on disk, memory
    mapped, until they are asked for; they come in one or several files, the shards.

    Args:
        path: its directory.
        shard_entries: number of entries in each shard.
        dimension: of the keys, d.
        key_dtype: of the keys, float16 or float32.
    """

    def __init__(self, path: Path, shard_entries: Sequence[int], dimension: int, key_dtype: type) -> None:
        self.path = path
        self.shard_entries = tuple(shard_entries)
        self.dimension = dimension
        self.key_dtype = key_dtype
        self._starts = np.cumsum([0, *shard_entries])
        self._key_maps: dict[int, np.ndarray] = {}

    @staticmethod
    def load(path: Path | str) -> "Datastore":
        """Open a datastore of this package or of knn-box, and check that its files are there in full size.

        Raises:
            DatastoreError: there is none, it is unfinished, a file is missing, truncated or not to be
                read, or a newer version of this package wrote it.
        """
        from fairseq_knn.datastore.opening import open_datastore  # it knows the formats, which know this class

        return open_datastore(Path(path))

    @property
    def entries(self) -> int:
        """Number of entries, N."""
        return int(self._starts[-1])

    @property
    @abstractmethod
    def plan(self) -> Plan | None:
        """What the datastore was built from; ``None`` if its format does not record that."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Which hidden state its keys are (``decoder_output``, ``ffn_input`` or ``ffn_output``)."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identifies the content: an index of another digest is not this datastore's."""

    @property
    @abstractmethod
    def values(self) -> np.ndarray:
        """Target token of every entry, (N,), in memory."""

    @property
    @abstractmethod
    def has_keys(self) -> bool:
        """Whether the keys are there; they may have been dropped when the index was built."""

    @property
    @abstractmethod
    def array_bytes(self) -> dict[str, int]:
        """How large the files of its arrays are, by name."""

    @property
    def foreign_index(self) -> Path | None:
        """The faiss index that another toolkit left beside its datastore."""
        return None

    @abstractmethod
    def verify_keys(self, shard: int) -> None:
        """Compare the keys of a shard with their checksum, if the format has one.

        Raises:
            DatastoreError: they differ.
        """

    @abstractmethod
    def _open_keys(self, shard: int) -> np.ndarray:
        """The keys of a shard that has entries, memory mapped, (n, d)."""

    def keys(self, start: int, stop: int) -> np.ndarray:
        """Keys of the entries ``[start, stop)`` in memory, (stop - start, d)."""
        self.require_keys()
        stop = min(stop, self.entries)
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self._starts[shard]), int(self._starts[shard + 1])
            if end > start:
                parts.append(self._mapped_keys(shard)[start - base : min(stop, end) - base])
                start = min(stop, end)
            shard += 1
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), self.key_dtype)

    def key_blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """All keys in order, at most *rows* at a time, as (first entry, (n, d))."""
        for start in range(0, self.entries, rows):
            yield start, self.keys(start, start + rows)

    def gather_keys(self, entries: np.ndarray) -> np.ndarray:
        """Keys of the given entries in their order, (n, d)."""
        self.require_keys()
        result: np.ndarray = np.empty((len(entries), self.dimension), self.key_dtype)
        shards = np.searchsorted(self._starts, entries, side="right") - 1
        for shard in np.unique(shards):
            chosen = np.flatnonzero(shards == shard)
            # Increasing rows: one pass over the file instead of jumps.
            chosen = chosen[np.argsort(entries[chosen], kind="stable")]
            result[chosen] = self._mapped_keys(int(shard))[entries[chosen] - self._starts[shard]]
        return result

    def require_keys(self) -> None:
        """
        Raises:
            DatastoreError: the keys were dropped.
        """
        if not self.has_keys:
            raise DatastoreError(
                f"the keys of {self.path} were dropped when its index was built, and what was asked for needs them: "
                "use its index as it is (--knn-backend faiss), or build the datastore again with --knn-overwrite"
            )

    def _mapped_keys(self, shard: int) -> np.ndarray:
        """Keys of one shard, memory mapped; of the first shards asked for the mapping is kept."""
        keys = self._key_maps.get(shard)
        if keys is None:
            keys = self._open_keys(shard)
            if len(self._key_maps) < _KEPT_MAPS:
                self._key_maps[shard] = keys
        return keys

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, entries={self.entries}, dimension={self.dimension})"
