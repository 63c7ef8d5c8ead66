"""Opening an index: what is whole and fits its datastore is searched, everything else is refused."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index import faiss_backend, open_backend, opening
from fairseq_knn.index.build import build_index
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.torch_backend import TorchBackend
from fairseq_knn.storage.atomic import read_json, write_json
from tests.support import write_datastore


def clustered(entries: int, dimension: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dimension))
    return (centres[rng.integers(40, size=entries)] + 0.5 * rng.normal(size=(entries, dimension))).astype(np.float16)


def store(path: Path, keys: np.ndarray) -> Datastore:
    return write_datastore(path, keys, np.arange(len(keys)) % 1000, shard_sentences=100)


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datastore with an inverted file; tests work on copies."""
    path = tmp_path_factory.mktemp("inverted") / "store"
    build_index(store(path, clustered(3000, 12)), "IVF16,PQ3x4fsr,Refine(SQfp16)", device="cpu", nprobe=16)
    return path


@pytest.fixture
def indexed(inverted: Path, tmp_path: Path) -> Datastore:
    return Datastore.load(shutil.copytree(inverted, tmp_path / "store"))


def open_faiss(datastore: Datastore, nprobe: int | None = None):
    return open_backend(datastore, backend="faiss", device="cpu", nprobe=nprobe)


def queries_near(datastore: Datastore, count: int) -> torch.Tensor:
    keys = datastore.keys(0, count).astype(np.float32)
    return torch.from_numpy(keys + np.random.default_rng(2).normal(scale=0.2, size=keys.shape).astype(np.float32))


@pytest.mark.parametrize(("entries", "dimension"), [(1, 1), (2, 5), (100, 7), (2000, 13)])
def test_flat_equals_brute_force(tmp_path: Path, entries: int, dimension: int) -> None:
    datastore = store(tmp_path / "store", clustered(entries, dimension))
    build_index(datastore, "flat", device="cpu")
    queries = queries_near(datastore, 30)
    expected = open_backend(datastore, backend="torch", device="cpu").search(queries, 9)
    distances, ids = open_faiss(datastore).search(queries, 9)
    torch.testing.assert_close(ids, expected[1])
    torch.testing.assert_close(distances, expected[0], rtol=1e-4, atol=1e-5)


def test_inverted_file_with_all_lists_equals_brute_force(indexed: Datastore) -> None:
    queries = queries_near(indexed, 50)
    expected = open_backend(indexed, backend="torch", device="cpu").search(queries, 8)
    distances, ids = open_faiss(indexed, nprobe=16).search(queries, 8)
    assert (ids == expected[1]).float().mean() > 0.95
    # Distances are those of the float16 keys themselves, not of their codes.
    same = ids == expected[1]
    torch.testing.assert_close(distances[same], expected[0][same], rtol=1e-4, atol=1e-5)


def test_keys_are_read_only_where_vectors_are_asked_for(indexed: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Datastore] = []
    stock = faiss_backend.open_keys

    def note(datastore: Datastore, *args: object, **options: object):
        opened.append(datastore)
        return stock(datastore, *args, **options)

    monkeypatch.setattr(faiss_backend, "open_keys", note)
    search = open_backend(indexed, backend="faiss", device="cpu", load="ram")
    search.search(queries_near(indexed, 4), 3)
    assert not opened
    ids = torch.tensor([5, 2999, 5])
    np.testing.assert_array_equal(search.vectors(ids), indexed.gather_keys(ids.numpy()))
    search.vectors(ids)
    assert opened == [indexed]


def test_missing_neighbours_are_marked(indexed: Datastore) -> None:
    distances, ids = open_faiss(indexed, nprobe=1).search(queries_near(indexed, 4), 2900)
    missing = ids < 0
    assert missing.any(dim=1).all()
    assert (ids[missing] == -1).all()
    assert torch.isinf(distances[missing]).all()
    assert torch.isfinite(distances[~missing]).all()
    assert (distances >= 0).all()
    assert (distances.diff(dim=1).nan_to_num() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_floating_dtype_and_no_queries_at_all(indexed: Datastore, dtype: torch.dtype) -> None:
    backend = open_faiss(indexed)
    queries = torch.from_numpy(indexed.keys(0, 5)).to(dtype)
    distances, ids = backend.search(queries, 1)
    assert distances.dtype == torch.float32
    assert ids.dtype == torch.int64
    assert ids.flatten().tolist() == list(range(5))
    distances, ids = backend.search(queries[:0], 4)
    assert distances.shape == ids.shape == (0, 4)


def test_wrong_dimension_is_refused(indexed: Datastore) -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\), expected \(n, 12\)"):
        open_faiss(indexed).search(torch.zeros(2, 5), 1)


def test_auto_needs_no_index_for_a_small_store(tmp_path: Path) -> None:
    assert isinstance(open_backend(store(tmp_path / "store", clustered(50, 4)), device="cpu"), TorchBackend)


def test_auto_asks_for_an_index_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "EXACT_SCAN", 100)
    datastore = store(tmp_path / "store", clustered(50, 4))
    with pytest.raises(SearchIndexError, match=rf"{datastore.path} has no search index.*`fairseq-knn build-index"):
        open_backend(datastore, device="cpu")


def test_index_older_than_its_datastore(indexed: Datastore, tmp_path: Path) -> None:
    newer = store(tmp_path / "newer", clustered(3000, 12, seed=9))
    for name in ("index.faiss", "index.json"):
        shutil.copy(indexed.path / name, newer.path / name)
    with pytest.raises(SearchIndexError, match=r"older than its datastore.*`fairseq-knn build-index"):
        open_faiss(newer)


def test_truncated_index(indexed: Datastore) -> None:
    path = indexed.path / "index.faiss"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(SearchIndexError, match=r"index\.faiss has .* bytes instead of .*build it again"):
        open_faiss(indexed)
    path.unlink()
    with pytest.raises(SearchIndexError, match=r"index\.faiss is missing"):
        open_faiss(indexed)


def test_unreadable_index(indexed: Datastore) -> None:
    path = indexed.path / "index.faiss"
    path.write_bytes(b"no index" + path.read_bytes()[8:])
    with pytest.raises(SearchIndexError, match=r"cannot read .*index\.faiss \(Index type .* not recognized\): "):
        open_faiss(indexed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "does not describe a search index"),
        ('{"settings": {"schema": 99}}', "has format version 99, this package reads version 1"),
        ('{"settings": {"schema": 1, "colour": "red"}}', "does not describe a search index"),
    ],
)
def test_damaged_record(indexed: Datastore, content: str, message: str) -> None:
    (indexed.path / "index.json").write_text(content)
    with pytest.raises(SearchIndexError, match=message):
        open_faiss(indexed)


def test_self_test_notices_damaged_content(indexed: Datastore) -> None:
    """The file has its size and its structure, but its keys are others."""
    path = indexed.path / "index.faiss"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:-8] = bytes(len(content) - 8 - middle)
    path.write_bytes(content)
    with pytest.raises(SearchIndexError, match=r"of 32 stored keys .* find themselves, against 32 .*searches wrongly"):
        open_faiss(indexed)


def test_self_test_notices_a_build_of_faiss_that_searches_wrongly(
    indexed: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = faiss.IndexRefine.search

    def wrong(self, queries, k):
        distances, ids = search(self, queries, k)
        return distances, (ids + 1) % self.ntotal

    monkeypatch.setattr(faiss.IndexRefine, "search", wrong)
    with pytest.raises(SearchIndexError, match="searches wrongly"):
        open_faiss(indexed)


def test_self_test_accepts_duplicates(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store", np.repeat(clustered(10, 8), 60, axis=0))
    build_index(datastore, "flat", device="cpu")
    distances, _ = open_faiss(datastore).search(torch.from_numpy(datastore.keys(0, 600)), 8)
    assert not distances.any()


def test_lower_nprobe_than_measured_is_mentioned(indexed: Datastore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_faiss(indexed, nprobe=32)
    assert not caplog.records
    open_faiss(indexed, nprobe=2)
    assert "measured with --knn-nprobe 16; with 2 it is lower" in caplog.text


def test_record_says_what_index_it_is(indexed: Datastore) -> None:
    path = indexed.path / "index.json"
    record = read_json(path)
    record["settings"]["entries"] = 2999
    write_json(path, record)
    with pytest.raises(SearchIndexError, match=r"built for 2,999 entries .* now has 3,000"):
        open_faiss(indexed)


def test_torch_is_loaded_before_faiss() -> None:
    """Then both use torch's OpenMP runtime; in the other order each has its own."""
    program = (
        "import sys, fairseq_knn.index.faiss_backend; names = list(sys.modules); "
        "print(names.index('torch') < names.index('faiss'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, asked: list[tuple[list[int], bool]]) -> None:
    """GPUs whose parts of an index are made as faiss makes them, and stay on the CPU.

    Args:
        asked: filled with the GPUs of every copy, and whether its tables are in half precision.
    """

    def to_several(index: faiss.Index, options: faiss.GpuMultipleClonerOptions, numbers: list[int]) -> faiss.Index:
        assert options.shard
        asked.append((numbers, options.useFloat16))
        if not isinstance(index, faiss.IndexIVF):
            return index  # as faiss leaves what it has no parts of
        shards = faiss.IndexShards(index.d, False, False)
        for number in range(len(numbers)):
            part = faiss.clone_index(index)
            part.reset()
            index.copy_subset_to(part, options.shard_type, len(numbers), number)
            shards.add_shard(part)
        return shards

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 3)
    monkeypatch.setattr(faiss, "index_cpu_to_gpus_list", to_several)


def test_gpus_that_hold_an_index_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = store(tmp_path / "store", clustered(3000, 12))
    build_index(datastore, "IVF16,SQ8", device="cpu", nprobe=4, min_recall=0)
    queries = queries_near(datastore, 50)
    expected = open_faiss(datastore).search(queries, 8)
    asked: list[tuple[list[int], bool]] = []
    pretend_gpus(monkeypatch, asked)
    gpus = [torch.device("cuda", number) for number in (1, 0, 2)]
    search = FaissSearch(read_index(datastore.path / "index.faiss"), gpus[0], 4, 1, gpus=gpus)
    assert asked == [([1, 0, 2], False)]
    assert search.device == gpus[0]
    for got, one in zip(search.search(queries, 8), expected, strict=True):
        assert torch.equal(got, one)


@pytest.mark.parametrize(("codes", "half"), [(48, False), (64, True)])
def test_tables_that_are_too_large_for_a_gpu(codes: int, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 sub-quantisers have tables of 64 KiB in float32; a GPU's shared memory has 48."""
    asked: list[tuple[list[int], bool]] = []
    pretend_gpus(monkeypatch, asked)
    FaissSearch(
        faiss.index_factory(192, f"IVF16,PQ{codes}"),
        torch.device("cuda", 0),
        4,
        1,
        gpus=[torch.device("cuda", number) for number in (0, 1)],
    )
    assert asked == [([0, 1], half)]


def test_gpus_that_cannot_hold_an_index_together(
    indexed: Datastore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_gpus(monkeypatch, [])
    gpus = [torch.device("cuda", number) for number in (0, 1)]
    search = FaissSearch(read_index(indexed.path / "index.faiss"), gpus[0], 16, 16, gpus=gpus)
    assert "searches on the CPU, for it cannot put this index on the GPU: GPUs have no IndexRefine" in caplog.text
    assert search.device.type == "cpu"
    assert search.search(queries_near(indexed, 2), 1)[1].flatten().tolist() == [0, 1]
