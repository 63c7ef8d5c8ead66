"""Keys of one shard in the order they were computed, waiting to be sorted."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import array_path
from fairseq_knn.storage.atomic import explain_os_errors, partial_path


class KeySpool:
    """A temporary file of keys, so that memory does not grow with the size of a shard.

    Sentences arrive in any order (batches are sorted by length), each in one piece; :meth:`read` gives
    their keys back in the order asked for.

    Args:
        root: directory of the datastore.
        shard: whose keys these are.

    Raises:
        UserError: the disk is full or the place not writable (here and when keys are appended or read).
    """

    def __init__(self, root: Path, shard: int) -> None:
        self.path = partial_path(array_path(root, "keys", shard).with_suffix(".spool"))
        with explain_os_errors(self.path.parent):
            self._file = self.path.open("w+b", buffering=1 << 20)
        self._rows = 0
        self._row_bytes = 0
        self._dimension = 0

    def append(self, keys: np.ndarray) -> int:
        """Append keys (float16 (n, d)) and return the row at which they start."""
        start = self._rows
        with self._closed_on_error():
            self._file.write(np.ascontiguousarray(keys).data)
        self._rows += len(keys)
        self._dimension = keys.shape[1]
        self._row_bytes = keys.shape[1] * keys.itemsize
        return start

    def read(self, runs: Iterator[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Yield the keys of each (first row, number of rows) in turn."""
        with self._closed_on_error():
            self._file.flush()
        descriptor = self._file.fileno()
        for start, rows in runs:
            data = os.pread(descriptor, rows * self._row_bytes, start * self._row_bytes)
            yield np.frombuffer(data, dtype=np.float16).reshape(rows, self._dimension)

    def close(self) -> None:
        """Delete the temporary file; may be called again."""
        self.path.unlink(missing_ok=True)
        # What is buffered still is not wanted any more, so it does not matter if the disk is full.
        with contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """A full disk gets its space back at once, and nothing tries to write the rest later."""
        with explain_os_errors(self.path.parent):
            try:
                yield
            except OSError:
                self.close()
                raise
