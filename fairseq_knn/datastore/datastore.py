"""What a datastore gives, whatever its files look like."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.manifest import Plan
from fairseq_knn.datastore.sharded_array import ShardedArray
from fairseq_knn.errors import DatastoreError


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
        self._stored_keys = ShardedArray(self.shard_entries, (dimension,), key_dtype, self._open_keys, self.verify_keys)

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
        return len(self._stored_keys)

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
    def log_probs(self) -> ShardedArray | None:
        """Natural logarithm of the probability that the model which built the datastore gave every entry's token in its
        own place, float32 (N,), memory mapped; ``None`` if that was not stored."""
        return None

    @property
    def continues(self) -> np.ndarray | None:
        """Whether the entry after an entry is its next token: in the same document of a language model's text, in the
        same sentence of a translation. Bool (N,), in memory; ``None`` if the format does not record that."""
        return None

    def entry_ids(self, sentences: np.ndarray) -> np.ndarray:
        """Where sentences begin; the other entries of a sentence follow its first.

        Args:
            sentences: their indices in the split, integers (...).

        Returns:
            number of each one's first entry, int64 (...); -1 where the datastore has none of it, or, as in other
            toolkits' formats, does not record sentences.
        """
        return np.full(np.shape(sentences), -1, np.int64)

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
        return self._stored_keys[start:stop]

    def key_blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """All keys in order, at most *rows* at a time, as (first entry, (n, d))."""
        for start in range(0, self.entries, rows):
            yield start, self.keys(start, start + rows)

    def gather_keys(self, entries: np.ndarray) -> np.ndarray:
        """Keys of the given entries in their order, (n, d)."""
        self.require_keys()
        return self._stored_keys[entries]

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, entries={self.entries}, dimension={self.dimension})"
