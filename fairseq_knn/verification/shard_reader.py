"""Reading the arrays of one shard side by side, whatever state they are in."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import ARRAYS, array_path
from fairseq_knn.datastore.manifest import ShardRecord
from fairseq_knn.datastore.npy import NpyReader
from fairseq_knn.datastore.sharded import size_fault
from fairseq_knn.storage.digest import short


class ShardReader:
    """Gives blocks of all arrays of a shard that can be read, and then tells what was wrong with their files.

    Args:
        root: directory of the datastore.
        shard: number of the shard.
        record: what should be there.
        dropped: arrays that need not be.
        advance: called with the number of bytes after every block of an array.

    Attributes:
        faults: (name of the array, what is wrong), while and after the blocks are read.
        complete: arrays that were read to their end.
    """

    def __init__(
        self,
        root: Path,
        shard: int,
        record: ShardRecord,
        dropped: Collection[str],
        advance: Callable[[int], object],
    ) -> None:
        self._root, self._shard, self._record, self._advance = root, shard, record, advance
        self._names = [name for name in ARRAYS if name in record.arrays and name not in dropped]
        self.faults: list[tuple[str, str]] = []
        self.complete: set[str] = set()

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """The same rows of every array that can be read, at most *rows* at a time."""
        with ExitStack() as stack:
            readers = {}
            for name in self._names:
                if (reader := self._opened(name)) is not None:
                    stack.callback(reader.close)
                    readers[name] = reader
            for _ in range(0, self._record.entries, rows):
                blocks = {name: self._block(name, reader, rows) for name, reader in readers.items()}
                yield {name: block for name, block in blocks.items() if block is not None}
                readers = {name: reader for name, reader in readers.items() if blocks[name] is not None}
        for name, reader in readers.items():
            self.complete.add(name)
            found, expected = reader.digest(), self._record.arrays[name].sha256
            if found != expected:
                self.faults.append((name, f"its checksum is {short(found)} instead of {short(expected)}"))

    def _opened(self, name: str) -> NpyReader | None:
        path = array_path(self._root, name, self._shard)
        try:
            if fault := size_fault(path, self._record.arrays[name].bytes):
                self.faults.append((name, f"it {fault}"))
                return None
            reader = NpyReader(path, self._advance)
        except OSError as error:
            self._unreadable(name, error)
            return None
        except ValueError as error:
            self.faults.append((name, f"it does not begin as .npy files do ({error})"))
            return None
        shape = (self._record.entries, *([self._record.dimension] if name == "keys" else []))
        if reader.shape != shape or reader.dtype.name not in self._types(name):
            reader.close()
            self.faults.append(
                (name, f"it holds {reader.dtype} {reader.shape} instead of {' or '.join(self._types(name))} {shape}")
            )
            return None
        return reader

    def _types(self, name: str) -> tuple[str, ...]:
        # The type of the sentences depends on how many the split has.
        types = {
            "keys": ("float16",),
            "values": (self._record.value_dtype,),
            "positions": ("int32",),
            "log_probs": ("float32",),
        }
        return types.get(name, ("int32", "int64"))

    def _block(self, name: str, reader: NpyReader, rows: int) -> np.ndarray | None:
        try:
            return reader.read(rows)
        except OSError as error:
            self._unreadable(name, error)
            return None

    def _unreadable(self, name: str, error: OSError) -> None:
        self.faults.append((name, f"it cannot be read ({error.strerror})"))
