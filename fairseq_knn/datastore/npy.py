""".npy files written piece by piece, with their checksum taken on the way."""

import hashlib
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

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
