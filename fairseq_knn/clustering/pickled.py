"""Reading the members files of RetoMaton and knn-transformers: pickled sparse matrices, of which nothing is run.

Such a file (``*_members*.pkl``) holds a matrix of scipy in compressed rows (CSR), a row for every cluster and a column
for every entry, with ones where an entry is a member. A pickle may call any function it names; here it can name nothing
but what such a matrix consists of.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.errors import DatastoreError

_WHAT = "the members file of RetoMaton or knn-transformers (a pickled scipy CSR matrix, a row for each cluster)"


class CsrMatrix:
    """Stands for scipy's: takes what was stored, and can do nothing.

    Attributes:
        shape: rows (clusters) and columns (entries).
        data: values that are stored, row after row.
        indices: their columns.
        indptr: where among them each row begins, and their number.
    """

    shape: Any
    data: Any
    indices: Any
    indptr: Any

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("its matrix has no fields")
        self.shape = state.get("_shape", state.get("shape"))
        self.data, self.indices, self.indptr = (state.get(name) for name in ("data", "indices", "indptr"))


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array as pickles of protocol 5 describe it."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


# What numpy's arrays and numbers name as the functions that make them again.
_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0]
# numpy calls its modules core before version 2 and _core from it on, scipy its module csr before version 1.8.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("scipy.sparse.csr", "csr_matrix"): CsrMatrix,
    ("scipy.sparse._csr", "csr_matrix"): CsrMatrix,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _RECONSTRUCT
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _SCALAR
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _NotAdmitted(f"{module}.{name}") from None


class _NotAdmitted(Exception):
    """A pickle names something else than a sparse matrix consists of."""


def read_members(path: Path, entries: int) -> tuple[np.ndarray, int]:
    """Read a members file.

    Args:
        path: the file.
        entries: number of entries of the datastore, N.

    Returns:
        cluster of every entry, int32 (N,), and the number of clusters.

    Raises:
        DatastoreError: there is no such file, it holds anything but a matrix, the matrix has another number of entries,
            or there is an entry in no cluster or in several.
    """
    matrix = _unpickle(path)
    clusters, columns = _checked_shape(path, matrix)
    if columns != entries:
        raise DatastoreError(
            f"{path} has clusters of {columns:,} entries, but the datastore has {entries:,}: name the members file "
            "that was made for it"
        )
    rows = np.repeat(np.arange(clusters, dtype=np.int32), np.diff(matrix.indptr))
    stored = matrix.data != 0  # a stored 0 is no membership
    rows, members = rows[stored], matrix.indices[stored]
    often = np.bincount(members, minlength=entries)
    for wrong, where in ((often == 0, "no cluster"), (often > 1, "several clusters")):
        if wrong.any():
            raise DatastoreError(
                f"{path} has {int(wrong.sum()):,} of {entries:,} entries in {where} (the first is "
                f"{int(wrong.argmax())}), but each must be in one: name the members file that was made for it"
            )
    cluster = np.empty(entries, np.int32)
    cluster[members] = rows
    return cluster, clusters


def _unpickle(path: Path) -> CsrMatrix:
    try:
        with path.open("rb") as file:
            matrix = _Unpickler(file).load()
    except _NotAdmitted as error:
        raise DatastoreError(
            f"{path} names {error}, which no matrix of members consists of, so it was not read: name {_WHAT}"
        ) from error
    except OSError as error:
        raise DatastoreError(f"{path} cannot be read ({error.strerror}): name {_WHAT}") from error
    except Exception as error:  # a damaged pickle may end in almost any
        raise DatastoreError(
            f"{path} is no whole pickle ({' '.join(str(error).split()) or type(error).__name__}): name {_WHAT}"
        ) from error
    if not isinstance(matrix, CsrMatrix):
        raise DatastoreError(f"{path} holds a {type(matrix).__name__}, not a sparse matrix: name {_WHAT}")
    return matrix


def _checked_shape(path: Path, matrix: CsrMatrix) -> tuple[int, int]:
    """Clusters and entries of a matrix whose parts fit together."""
    try:
        clusters, columns = (int(size) for size in matrix.shape)
        indptr, indices, data = matrix.indptr, matrix.indices, matrix.data
        whole = (
            all(isinstance(array, np.ndarray) and array.ndim == 1 for array in (indptr, indices, data))
            and indptr.dtype.kind == indices.dtype.kind == "i"
            and data.dtype.kind in "iufb"
            and len(indptr) == clusters + 1
            and len(indices) == len(data) == indptr[-1]
            and indptr[0] == 0
            and bool((np.diff(indptr) >= 0).all())
            and (not len(indices) or 0 <= indices.min() <= indices.max() < columns)
        )
    except (AttributeError, TypeError, ValueError, IndexError):
        whole = False
    if not whole:
        raise DatastoreError(f"the parts of the matrix in {path} do not fit together: it is damaged; name {_WHAT}")
    return clusters, columns
