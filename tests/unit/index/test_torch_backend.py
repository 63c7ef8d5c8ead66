"""Exact search agrees with float64 brute force, wherever rounding could make it disagree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.index import open_backend, torch_backend
from fairseq_knn.index.stored_keys import StreamedKeys
from tests.support import write_datastore


def brute_force(keys: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ids of the k nearest, in float64; ties by id."""
    differences = queries.astype(np.float64)[:, None] - keys.astype(np.float64)[None]
    distances = np.square(differences).sum(2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def store(path: Path, keys: np.ndarray):
    return write_datastore(path / "store", keys, np.arange(len(keys)) % 1000, shard_sentences=20)


def search(datastore, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    backend = open_backend(datastore, backend="torch", device="cpu")
    distances, ids = backend.search(torch.from_numpy(queries), k)
    assert distances.dtype == torch.float32
    assert ids.dtype == torch.int64
    return distances.numpy(), ids.numpy()


@pytest.mark.parametrize(("entries", "dimension"), [(1, 1), (2, 3), (40, 7), (500, 17), (5000, 16)])
def test_equals_brute_force(tmp_path: Path, entries: int, dimension: int) -> None:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(entries, dimension)).astype(np.float16)
    queries = rng.normal(size=(9, dimension)).astype(np.float32)
    k = min(8, entries)
    expected, expected_ids = brute_force(keys, queries, k)
    distances, ids = search(store(tmp_path, keys), queries, k)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


def near_duplicates(rng: np.random.Generator, norm: float) -> np.ndarray:
    """Two far clusters, each of 300 keys that differ from its centre in the last bits of float16."""
    centre = np.full(12, norm) * rng.choice([-1, 1], 12)
    steps = rng.integers(-2, 3, size=(600, 12)) * np.spacing(np.float16(norm))
    return (np.repeat([centre, -centre], 300, axis=0) + steps).astype(np.float16)


@pytest.mark.parametrize("norm", [1.0, 300.0, 60000.0])
def test_near_duplicates_with_large_norms(tmp_path: Path, norm: float) -> None:
    """The terms of |q|^2 - 2qk + |k|^2 are up to 10^10 times larger than the distances asked for."""
    rng = np.random.default_rng(2)
    keys = near_duplicates(rng, norm)
    queries = keys[::50].astype(np.float32) * (1 + 1e-4 * rng.normal(size=(12, 12)).astype(np.float32))
    expected, _ = brute_force(keys, queries, 8)
    distances, ids = search(store(tmp_path, keys), queries, 8)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    assert all(len(set(row)) == 8 for row in ids)


def test_stored_keys_find_themselves_at_distance_zero(tmp_path: Path) -> None:
    keys = near_duplicates(np.random.default_rng(3), 500.0)
    distances, ids = search(store(tmp_path, keys), keys, 1)
    np.testing.assert_array_equal(distances, 0)
    np.testing.assert_array_equal(keys[ids[:, 0]], keys)


def test_many_exact_duplicates(tmp_path: Path) -> None:
    keys = np.repeat(np.random.default_rng(4).normal(size=(3, 5)), 200, axis=0).astype(np.float16)
    distances, ids = search(store(tmp_path, keys), keys[[0, 250]] + np.float16(0.25), 70)
    expected, _ = brute_force(keys, keys[[0, 250]] + np.float16(0.25), 70)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    assert all(len(set(row)) == 70 for row in ids)


def test_missing_neighbours_are_marked(tmp_path: Path) -> None:
    keys = np.eye(3, dtype=np.float16)
    distances, ids = search(store(tmp_path, keys), np.zeros((2, 3), np.float32), 5)
    np.testing.assert_array_equal(ids, [[0, 1, 2, -1, -1]] * 2)
    np.testing.assert_array_equal(distances, [[1, 1, 1, np.inf, np.inf]] * 2)


def test_no_queries(tmp_path: Path) -> None:
    distances, ids = search(store(tmp_path, np.eye(50, dtype=np.float16)), np.zeros((0, 50), np.float32), 4)
    assert distances.shape == ids.shape == (0, 4)


def test_queries_that_are_no_numbers_find_nothing(tmp_path: Path) -> None:
    queries = np.array([[np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    distances, ids = search(store(tmp_path, np.eye(3, dtype=np.float16)), queries, 2)
    np.testing.assert_array_equal(ids, [[-1, -1], [0, 1]])
    np.testing.assert_array_equal(distances, [[np.inf, np.inf], [1, 1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_takes_any_floating_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    backend = open_backend(store(tmp_path, np.eye(4, dtype=np.float16)), backend="torch", device="cpu")
    distances, ids = backend.search(torch.eye(4, dtype=dtype), 1)
    assert distances.dtype == torch.float32
    assert ids.flatten().tolist() == [0, 1, 2, 3]
    assert not distances.any()


def test_result_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    datastore = store(tmp_path, rng.normal(size=(3000, 24)).astype(np.float16))
    queries = rng.normal(size=(37, 24)).astype(np.float32)
    together = search(datastore, queries, 6)
    for row in (0, 17, 36):
        alone = search(datastore, queries[row : row + 1], 6)
        np.testing.assert_array_equal(alone[1][0], together[1][row])
        np.testing.assert_allclose(alone[0][0], together[0][row], rtol=1e-6)


def test_keys_read_from_disk_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    datastore = store(tmp_path, rng.normal(size=(2000, 10)).astype(np.float16))
    queries = rng.normal(size=(5, 10)).astype(np.float32)
    resident = search(datastore, queries, 7)
    monkeypatch.setattr(torch_backend, "_CPU_RESIDENT", 0)
    monkeypatch.setattr(torch_backend, "_CPU_SCORES", 4 * 128 * 300)
    backend = open_backend(datastore, backend="torch", device="cpu")
    assert isinstance(backend._keys, StreamedKeys)
    for got, expected in zip(search(datastore, queries, 7), resident, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_wrong_dimension_is_refused(tmp_path: Path) -> None:
    backend = open_backend(store(tmp_path, np.eye(4, dtype=np.float16)), backend="torch", device="cpu")
    with pytest.raises(ValueError, match=r"\(2, 5\), expected \(n, 4\)"):
        backend.search(torch.zeros(2, 5), 1)


def test_damaged_keys_are_noticed(tmp_path: Path) -> None:
    datastore = store(tmp_path, np.eye(4, dtype=np.float16))
    path = tmp_path / "store/shards/keys-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DatastoreError, match=r"keys-00000\.npy has checksum"):
        open_backend(datastore, backend="torch", device="cpu")


@pytest.mark.parametrize("backend", ["auto", "torch", "faiss"])
def test_gpu_asked_for_and_absent(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    datastore = store(tmp_path, np.eye(4, dtype=np.float16))
    with pytest.raises(UserError, match=r"--knn-device cuda asks for a GPU.*sees none.*--knn-device cpu"):
        open_backend(datastore, backend=backend, device="cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def test_every_device_finds_the_nearest(tmp_path: Path, device: str) -> None:
    rng = np.random.default_rng(7)
    datastore = store(tmp_path, rng.normal(size=(5000, 32)).astype(np.float16))
    queries = torch.from_numpy(rng.normal(size=(40, 32)).astype(np.float32))
    keys = torch.from_numpy(datastore.keys(0, 5000)).double()
    expected = (queries.double()[:, None] - keys).square().sum(-1).topk(9, largest=False)
    distances, ids = open_backend(datastore, backend="torch", device=device).search(queries.to(device), 9)
    assert distances.device.type == ids.device.type == device
    torch.testing.assert_close(distances.cpu(), expected.values.float())
    torch.testing.assert_close(ids.cpu(), expected.indices)
