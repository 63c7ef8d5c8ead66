""".npy files written and read piece by piece, with their checksum taken on the way."""

import errno
import hashlib
import io
import math
import tokenize
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from fairseq_knn.datastore.manifest import ArrayRecord
from fairseq_knn.storage.atomic import atomic_path


def write_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[np.ndarray]) -> ArrayRecord:
    """Write an array that never is in memory as a whole.

    Args:
        path: of the .npy file; it appears when it is complete.
        shape, dtype: of the whole array.
        pieces: consecutive parts along the first axis, of that dtype.

    Raises:
        UserError: the disk is full or the place not writable.
        ValueError: the pieces do not add up to the shape.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
    )
    digest = hashlib.sha256()
    size = 0
    expected = len(header.getvalue()) + math.prod(shape) * dtype.itemsize
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for block in _blocks(header.getvalue(), pieces):
            digest.update(block)
            size += len(block)
            file.write(block)
        if size != expected:
            raise ValueError(f"the pieces of {path} add up to {size} bytes instead of {expected}")
    return ArrayRecord(bytes=size, sha256=digest.hexdigest())


def _blocks(header: bytes, pieces: Iterable[np.ndarray]) -> Iterable[memoryview]:
    yield memoryview(header)
    for piece in pieces:
        if piece.size:  # views of nothing cannot be cast
            yield np.ascontiguousarray(piece).data.cast("B")


def map_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, memory mapped.

    The mapping holds no open file, of which a process may usually have 1,024: numpy's and Python's own hold one each,
    and a large datastore has thousands of files, all of which a search may read.

    Returns:
        The array; writing to it is an error.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no .npy file, or ends too early.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        header, size = file.tell(), file.seek(0, io.SEEK_END)
    if size < header + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} ends too early")
    # Not shared: the file is opened to be read alone.
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    content.flags.writeable = False
    mapped: np.ndarray = np.frombuffer(content, dtype, math.prod(shape), header).reshape(shape)
    return mapped


class NpyReader:
    """An array that is read once, from its start to its end.

    Args:
        path: of the .npy file.
        advance: called with the number of bytes after every piece (for a progress bar).

    Raises:
        ValueError: it does not begin like a .npy file.
        OSError: it cannot be read (here and when pieces are read).
    """

    def __init__(self, path: Path, advance: Callable[[int], object]) -> None:
        self._file = path.open("rb")
        self._advance = advance
        self._digest = hashlib.sha256()
        try:
            np.lib.format.read_magic(self._file)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(self._file)
            header = self._file.tell()
            self._file.seek(0)
            self._took(self._file.read(header))
        # numpy reads the header as a Python literal, and not all that can go wrong then becomes a ValueError.
        except (SyntaxError, TypeError, tokenize.TokenError) as error:
            self.close()
            raise ValueError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._left = self.shape[0] if self.shape else 0

    def read(self, rows: int) -> np.ndarray:
        """The next rows, at most *rows*; none at the end."""
        piece: np.ndarray = np.empty((min(rows, self._left), *self.shape[1:]), self.dtype)
        if piece.size:
            block = piece.data.cast("B")
            if self._file.readinto(block) < len(block):
                raise OSError(errno.EIO, "it ends too early")
            self._took(block)
        self._left -= len(piece)
        return piece

    def _took(self, block: bytes | memoryview) -> None:
        self._digest.update(block)
        self._advance(len(block))

    def digest(self) -> str:
        """SHA-256 of what was read: of the file, when all rows were."""
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
