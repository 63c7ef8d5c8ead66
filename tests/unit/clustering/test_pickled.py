"""Members files of RetoMaton and knn-transformers: read without scipy, and without running anything."""

import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_knn.clustering import import_members
from fairseq_knn.clustering.pickled import read_members
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError

CLUSTER = np.array([2, 0, 2, 1, 0, 2], np.int32)


class csr_matrix:
    """Pickled as scipy's is, whose fields it has."""


def pickled(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    *,
    module: str = "scipy.sparse._csr",
    protocol: int = 4,
) -> Path:
    """A file as ``pickle.dump`` writes of a matrix of scipy with these fields."""
    monkeypatch.setattr(csr_matrix, "__module__", module)
    package = type(sys)(module)
    package.csr_matrix = csr_matrix  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, package)
    matrix = csr_matrix()
    matrix.__dict__.update(fields)
    path.write_bytes(pickle.dumps(matrix, protocol))
    return path


def members(cluster: np.ndarray = CLUSTER, count: int = 3, **changed: Any) -> dict[str, Any]:
    """The fields of the matrix of these clusters."""
    order = np.argsort(cluster, kind="stable")
    fields = {
        "_shape": (count, len(cluster)),
        "maxprint": 50,
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(cluster, minlength=count))]).astype(np.int32),
        "indices": order.astype(np.int32),
        "data": np.ones(len(cluster), np.int64),
        "_has_canonical_format": True,
    }
    return {**fields, **changed}


@pytest.mark.parametrize("module", ["scipy.sparse.csr", "scipy.sparse._csr"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, protocol: int) -> None:
    path = pickled(tmp_path / "m.pkl", monkeypatch, members(), module=module, protocol=protocol)
    cluster, count = read_members(path, 6)
    assert (cluster.tolist(), cluster.dtype, count) == (CLUSTER.tolist(), np.int32, 3)


def test_read_of_numpy_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's modules had other names, and the shape may be of its numbers."""
    shape = (np.int64(3), np.int64(6))
    path = pickled(tmp_path / "m.pkl", monkeypatch, members(_shape=shape), protocol=3)
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_members(path, 6)[0].tolist() == CLUSTER.tolist()


def test_stored_zeros_are_no_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = members(
        indptr=np.array([0, 3, 4, 7]), indices=np.array([1, 4, 5, 3, 0, 2, 5]), data=np.array([1, 1, 0, 1, 1, 1, 1.0])
    )
    assert read_members(pickled(tmp_path / "m.pkl", monkeypatch, fields), 6)[0].tolist() == CLUSTER.tolist()


class Attack:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Attack(os.system, "touch ran"), "posix.system"),
        (Attack(eval, "1"), "builtins.eval"),
        (members(data=Attack(eval, "1")), "builtins.eval"),
        ([np.save], "numpy.save"),
        (Path("x"), "pathlib.PosixPath"),
    ],
)
def test_anything_else_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DatastoreError, match=f"names {re.escape(told)}, which no matrix of members consists of"):
        read_members(path, 6)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no whole pickle"),
        (b"clusters", "is no whole pickle"),
        (pickle.dumps(np.arange(3))[:-4], "is no whole pickle"),
        (pickle.dumps(np.arange(3)), "holds a ndarray, not a sparse matrix"),
        (pickle.dumps({"a": 1}), "holds a dict, not a sparse matrix"),
        (b"\x80\x04cscipy.sparse._csr\ncsr_matrix\n)\x81.", "do not fit together"),
        (b"\x80\x04cscipy.sparse._csr\ncsr_matrix\n)\x81K\x01b.", "its matrix has no fields"),
    ],
)
def test_damaged(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    with pytest.raises(DatastoreError, match=told):
        read_members(path, 6)


@pytest.mark.parametrize(
    "changed",
    [
        {"indptr": np.array([0, 2, 3])},
        {"indptr": np.array([0, 3, 2, 6])},
        {"indptr": np.array([0.0, 2, 3, 6])},
        {"indices": np.array([0, 1, 2, 3, 4, 6])},
        {"indices": np.array([0, 1, 2, 3, 4, -1])},
        {"data": np.ones(5)},
        {"data": np.array([None] * 6)},
        {"_shape": (3,)},
        {"_shape": None},
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    path = pickled(tmp_path / "m.pkl", monkeypatch, members(**changed))
    with pytest.raises(DatastoreError, match="do not fit together"):
        read_members(path, 6)


def test_other_number_of_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pickled(tmp_path / "m.pkl", monkeypatch, members())
    with pytest.raises(DatastoreError, match="has clusters of 6 entries, but the datastore has 7"):
        read_members(path, 7)


@pytest.mark.parametrize(
    ("indices", "told"),
    [
        ([1, 4, 3, 0, 2, 4], "1 of 6 entries in no cluster (the first is 5)"),
        ([0, 1, 2, 3, 4, 4], "1 of 6 entries in no cluster (the first is 5)"),
    ],
)
def test_entries_in_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indices: list[int], told: str) -> None:
    path = pickled(tmp_path / "m.pkl", monkeypatch, members(indices=np.array(indices)))
    with pytest.raises(DatastoreError, match=re.escape(told)):
        read_members(path, 6)


def test_entries_in_several_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = members(indptr=np.array([0, 2, 4, 7]), indices=np.array([1, 4, 3, 4, 0, 2, 5]), data=np.ones(7))
    path = pickled(tmp_path / "m.pkl", monkeypatch, fields)
    with pytest.raises(DatastoreError, match=re.escape("1 of 6 entries in several clusters (the first is 4)")):
        read_members(path, 6)


def test_taken_over(store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = np.arange(store.entries, dtype=np.int32) % 7
    path = pickled(tmp_path / "m.pkl", monkeypatch, members(cluster, 7))
    clusters = import_members(store, "theirs", path)
    np.testing.assert_array_equal(clusters.cluster, cluster)
    assert clusters.made["method"] == "members"
    lines: list[str] = []
    import_members(store, "theirs", path, report=lines.append)
    assert "is up to date" in lines[0]
    other = pickled(tmp_path / "n.pkl", monkeypatch, members(cluster[::-1].copy(), 7))
    with pytest.raises(DatastoreError, match="has clusters 'theirs' with other settings"):
        import_members(store, "theirs", other)
    changed = import_members(store, "theirs", other, overwrite=True)
    np.testing.assert_array_equal(changed.cluster, cluster[::-1])
    with pytest.raises(DatastoreError, match="there is no members file"):
        import_members(store, "theirs", tmp_path / "none.pkl")
