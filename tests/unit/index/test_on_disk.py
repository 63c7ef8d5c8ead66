"""Lists that stay on disk are searched as those in memory are, wherever the directory is."""

import logging
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, SearchIndexError
from fairseq_knn.index import making, on_disk, open_backend, parts
from fairseq_knn.index.array_tasks import build_part, train_index
from fairseq_knn.index.build import build_index
from fairseq_knn.index.description import describe_index
from fairseq_knn.index.dropping import drop_keys
from fairseq_knn.index.factory import choose_on_disk_factory
from fairseq_knn.index.faiss_backend import FaissBackend
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.verification.index import index_bytes, index_findings
from tests.support import write_datastore

FINISHED = ["index.faiss", "index.ivfdata", "index.json", "manifest.json", "shards"]
ENTRIES, DIMENSION = 2999, 16


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, DIMENSION))
    keys = centres[rng.integers(40, size=ENTRIES)] + 0.5 * rng.normal(size=(ENTRIES, DIMENSION))
    path = tmp_path_factory.mktemp("on_disk") / "store"
    write_datastore(path, keys, np.arange(ENTRIES) % 1000, shard_sentences=100)
    return path


@pytest.fixture(scope="module")
def built(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an index on disk, to copy."""
    path = shutil.copytree(written, tmp_path_factory.mktemp("built") / "store")
    build_index(Datastore.load(path), device="cpu", on_disk=True, num_shards=3)
    return path


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Datastore:
    return Datastore.load(shutil.copytree(written, tmp_path / "store"))


@pytest.fixture
def indexed(built: Path, tmp_path: Path) -> Datastore:
    return Datastore.load(shutil.copytree(built, tmp_path / "indexed"))


def names(datastore: Datastore) -> list[str]:
    return sorted(path.name for path in datastore.path.iterdir())


def result(datastore: Datastore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in datastore.path.glob("index.*")}


def queries(datastore: Datastore) -> torch.Tensor:
    keys = datastore.keys(0, 100).astype(np.float32)
    return torch.from_numpy(keys + np.random.default_rng(2).normal(scale=0.2, size=keys.shape).astype(np.float32))


def open_faiss(datastore: Datastore, **options: str) -> FaissBackend:
    backend = open_backend(datastore, backend="faiss", device="cpu", **options)
    assert isinstance(backend, FaissBackend)
    return backend


@pytest.mark.parametrize("spec", ["IVF16_HNSW8,SQ8", "IVF16,PQ4x4", "Pad20,IVF16,RaBitQ", "IVF16,Flat"])
def test_what_the_lists_give_is_what_they_give_in_memory(written: Path, tmp_path: Path, spec: str) -> None:
    stores = [Datastore.load(shutil.copytree(written, tmp_path / name)) for name in ("memory", "disk")]
    build_index(stores[0], spec, device="cpu", min_recall=0)
    build_index(stores[1], spec, device="cpu", min_recall=0, on_disk=True, num_shards=3)
    wanted = queries(stores[0]).numpy()
    for one, other in zip(*(open_faiss(each)._index.search(wanted, 20) for each in stores), strict=True):
        np.testing.assert_array_equal(one, other)


def test_candidates_are_ranked_by_the_stored_keys(indexed: Datastore) -> None:
    record = IndexRecord.load(indexed)
    assert record.settings.factory == f"RR{DIMENSION},IVF64,RaBitQ"
    assert record.recall >= 0.95
    assert record.k_factor is not None
    wanted = queries(indexed)
    backend = open_faiss(indexed)
    assert backend.effort == (record.nprobe, record.k_factor)
    distances, ids = backend.search(wanted, 8)
    expected, expected_ids = open_backend(indexed, backend="torch", device="cpu").search(wanted, 8)
    same = ids == expected_ids
    assert same.float().mean() > 0.9
    torch.testing.assert_close(distances[same], expected[same])
    np.testing.assert_array_equal(backend.vectors(ids[0]), indexed.gather_keys(ids[0].numpy()))
    # Lists of which less than k entries are looked into, and many neighbours.
    distances, ids = backend.search(wanted, ENTRIES)
    assert (distances.diff(dim=1).nan_to_num() >= 0).all()
    assert torch.equal(ids < 0, torch.isinf(distances))
    assert backend.search(wanted[:0], 3)[1].shape == (0, 3)


def test_any_number_of_parts_and_any_interruption_give_the_same(
    store: Datastore, indexed: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise InterruptedError

    train_index(store, device="cpu", on_disk=True)
    for part in range(5):
        build_part(store, num_shards=5, shard_id=part, device="cpu", on_disk=True)
    with monkeypatch.context() as patch:
        patch.setattr(making, "attach_lists", interrupt)
        with pytest.raises(InterruptedError):
            build_index(store, device="cpu", on_disk=True)
    monkeypatch.setattr(making, "write_lists", pytest.fail)  # they are there
    build_index(store, device="cpu", on_disk=True)
    assert result(store) == result(indexed)
    assert names(store) == FINISHED


def test_parts_are_as_large_as_memory_allows(
    store: Datastore, indexed: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 10_000)
    add, made = making.add_keys, []

    def interrupt(*arguments: object, **options: object) -> None:
        made.append(arguments[2])
        if len(made) == 3:
            raise InterruptedError
        add(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(making, "add_keys", interrupt)
        with pytest.raises(InterruptedError):
            build_index(store, device="cpu", on_disk=True)
    assert max(map(len, made)) * 18 < 10_000
    lines: list[str] = []
    build_index(store, device="cpu", on_disk=True, report=lines.append)
    assert sum(line.startswith("building part") for line in lines) == -(-ENTRIES * 18 // 10_000) - 2
    assert result(store) == result(indexed)


def test_a_directory_that_was_moved_or_may_not_be_written(indexed: Datastore) -> None:
    wanted = queries(indexed)
    before = open_faiss(indexed).search(wanted, 8)
    assert str(indexed.path).encode() not in (indexed.path / "index.faiss").read_bytes()
    moved = Datastore.load(indexed.path.rename(indexed.path.with_name("moved")))
    (moved.path / "index.ivfdata").chmod(0o444)
    for one, other in zip(before, open_faiss(moved).search(wanted, 8), strict=True):
        assert torch.equal(one, other)


def test_lists_are_mapped_or_read(
    indexed: Datastore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lists(backend: FaissBackend) -> faiss.InvertedLists:
        return faiss.downcast_InvertedLists(faiss.extract_index_ivf(backend._index).invlists)

    mapped, read = open_faiss(indexed, load="mmap"), open_faiss(indexed, load="ram")
    assert isinstance(lists(mapped), faiss.OnDiskInvertedLists)
    assert isinstance(lists(read), faiss.ArrayInvertedLists)
    wanted = queries(indexed)
    for one, other in zip(mapped.search(wanted, 8), read.search(wanted, 8), strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(on_disk, "_free_memory", lambda: 10)
    with caplog.at_level(logging.WARNING):
        assert isinstance(lists(open_faiss(indexed, load="ram")), faiss.OnDiskInvertedLists)
    assert "they stay on disk, memory mapped" in caplog.text


def test_missing_truncated_and_damaged_lists(indexed: Datastore) -> None:
    file = indexed.path / "index.ivfdata"
    content = file.read_bytes()
    assert index_bytes(indexed) == len(content) + (indexed.path / "index.faiss").stat().st_size
    advanced: list[int] = []
    (finding,) = index_findings(indexed, advanced.append)
    assert not finding.fault
    assert sum(advanced) == index_bytes(indexed)
    assert describe_index(indexed)["bytes"] == index_bytes(indexed)
    assert describe_index(indexed)["on_disk"]
    file.write_bytes(content[:-1] + b"x")
    assert "index.ivfdata is damaged: it has checksum" in next(index_findings(indexed, advanced.append)).text
    file.write_bytes(content[:-1])
    with pytest.raises(SearchIndexError, match=r"index\.ivfdata has .* bytes instead of .*: restore it, or build it"):
        open_faiss(indexed)
    file.unlink()
    with pytest.raises(SearchIndexError, match=r"index\.ivfdata is missing: restore it"):
        open_faiss(indexed)
    build_index(indexed, device="cpu", on_disk=True)
    assert file.read_bytes() == content


def test_it_is_measured_again_and_replaced(indexed: Datastore) -> None:
    lists = (indexed.path / "index.ivfdata").read_bytes()
    record = build_index(indexed, device="cpu", on_disk=True, nprobe=4, min_recall=0)
    assert (record.nprobe, record.k_factor) == (4, 8)
    assert (indexed.path / "index.ivfdata").read_bytes() == lists
    build_index(indexed, "IVF8,SQ8", device="cpu", min_recall=0)
    assert "index.ivfdata" not in names(indexed)
    open_faiss(indexed)


def test_the_keys_are_needed(indexed: Datastore) -> None:
    with pytest.raises(SearchIndexError, match="are what its index on disk ranks candidates by, so they cannot"):
        drop_keys(indexed)


@pytest.mark.parametrize("spec", ["flat", "IVF8,PQ4x4fs", "IVF8,SQ8,Refine(SQfp16)", "IVF8,PQ4+4", "HNSW8,Flat"])
def test_what_cannot_be_on_disk(store: Datastore, spec: str) -> None:
    with pytest.raises(SearchIndexError, match="cannot stay on disk, which needs an inverted file with plain codes"):
        build_index(store, spec, device="cpu", on_disk=True)
    assert names(store) == ["manifest.json", "shards"]


def test_lists_on_disk_are_not_for_gpus(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigurationError, match="--on-disk keeps the lists of the index on disk"):
        build_index(store, device="cuda", on_disk=True)


def test_the_index_that_is_chosen() -> None:
    assert choose_on_disk_factory(200_000, 1024) == "RR1024,IVF2048,RaBitQ"
    assert choose_on_disk_factory(100_000_000, 1024) == "RR1024,IVF32768_HNSW32,RaBitQ"
    assert choose_on_disk_factory(10**9, 1024) == "RR1024,IVF65536_HNSW32,RaBitQ"
    for entries in (1, 2, 100, 5000):
        for dimension in (1, 7, 512):
            assert faiss.index_factory(dimension, choose_on_disk_factory(entries, dimension)).d == dimension
