"""What is wrong with an index is told; what it is, too."""

import json
import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.build import build_index
from fairseq_knn.index.description import describe_index, kind_of
from fairseq_knn.index.dropping import drop_keys
from fairseq_knn.verification.index import index_bytes, index_findings
from tests.damage import flip, rewrite
from tests.support import write_datastore

INVERTED = "IVF8,PQ3x4fsr,Refine(SQfp16)"


def write(path: Path, seed: int = 1) -> Datastore:
    keys = np.random.default_rng(seed).normal(size=(1000, 12))
    return write_datastore(path, keys, np.arange(1000) % 900 + 4, shard_sentences=50)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = write(tmp_path_factory.mktemp("built") / "store")
    build_index(store, INVERTED, device="cpu", nprobe=8, min_recall=0.5)
    return store.path


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Datastore:
    """A datastore with an index, to damage."""
    return Datastore.load(shutil.copytree(built, tmp_path / "store"))


def found(store: Datastore, *, faults: bool = True, testable: bool = True) -> list[str]:
    findings = list(index_findings(store, lambda _: None, testable=testable))
    return [finding.text for finding in findings if finding.fault == faults]


def test_whole(store: Datastore) -> None:
    advanced: list[int] = []
    (finding,) = index_findings(store, advanced.append)
    assert not finding.fault
    assert "stored keys find themselves in index.faiss (IVF8,PQ3x4fsr,Refine(SQfp16), recall@8 " in finding.text
    assert sum(advanced) == index_bytes(store) == (store.path / "index.faiss").stat().st_size
    known = describe_index(store)
    record = json.loads((store.path / "index.json").read_text())
    assert known == {
        "state": "ready",
        "bytes": record["bytes"],
        "kind": INVERTED,
        "on_disk": False,
        "recall": record["recall"],
        "k": 8,
        "nprobe": 8,
        "trained_with": 1000,
        "faiss": faiss.__version__,
    }


def test_no_index(tmp_path: Path) -> None:
    store = write(tmp_path)
    assert found(store) == []
    assert "there is no index" in found(store, faults=False)[0]
    assert index_bytes(store) == 0
    assert describe_index(store)["state"] == "missing"


def test_flipped_bit(store: Datastore) -> None:
    flip(store.path / "index.faiss", 5000)
    (fault,) = found(store)
    assert "index.faiss is damaged: it has checksum" in fault
    assert f"build it again with `fairseq-knn build-index {store.path}`" in fault


@pytest.mark.parametrize("damage", ["missing", "truncated", "record"])
def test_unusable(damage: str, store: Datastore) -> None:
    file = store.path / "index.faiss"
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (store.path / "index.json").write_text("{}")
    (fault,) = found(store)
    assert "build it again" in fault
    known = describe_index(store)
    assert (known["state"], known["message"]) == ("unusable", fault)


def test_stale(store: Datastore) -> None:
    rewrite(store.path, "values", 0, lambda values: values + 1)
    changed = Datastore.load(store.path)
    (fault,) = found(changed)
    assert "is older than its datastore" in fault
    assert describe_index(changed)["state"] == "unusable"


def test_index_that_finds_nothing(store: Datastore, tmp_path: Path) -> None:
    """Right by its record, but of other keys."""
    other = write(tmp_path / "other", seed=2)
    build_index(other, INVERTED, device="cpu", nprobe=8, min_recall=0.5)
    shutil.copy(other.path / "index.faiss", store.path)
    record = json.loads((other.path / "index.json").read_text())
    record["settings"]["datastore"] = store.digest
    (store.path / "index.json").write_text(json.dumps(record))
    (fault,) = found(store)
    assert "of 32 stored keys looked up in" in fault
    assert found(store, testable=False) == []
    assert "no keys were looked up" in found(store, testable=False, faults=False)[0]


def test_dropped_keys(store: Datastore) -> None:
    drop_keys(store)
    dropped = Datastore.load(store.path)
    assert found(dropped) == []
    assert "stored keys find themselves" in found(dropped, faults=False)[0]
    (store.path / "shards" / "sample.npy").write_bytes(b"")
    assert "sample.npy, the keys that were kept to test the index with, is damaged" in found(dropped)[0]
    flip(store.path / "index.faiss", 5000)
    (fault,) = found(dropped)
    assert "it cannot be built again without the keys, which were dropped: restore it" in fault
    for name in ("index.faiss", "index.json"):
        (store.path / name).unlink()
    (fault,) = found(dropped)
    assert "has neither keys nor an index" in fault


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        *((same, same) for same in ("Flat", "SQ8", "PQ4", "IVF8,Flat", "IVF8,SQfp16", "IVF64,PQ16", "IVF8,PQ4x6")),
        *((same, same) for same in ("IVF8,PQ4x4fs", INVERTED.replace("PQ3", "PQ4"), "Pad32,IVF8,PQ8x4fsr")),
        *((same, same) for same in ("OPQ4_8,IVF8,PQ4", "PCA8,IVF8,SQ4", "IDMap,Flat", "HNSW8,Flat")),
        ("IVF8,PQ4,RFlat", "IVF8,PQ4,Refine(Flat)"),
        ("IVF8_HNSW8,PQ4", "IVF8(HNSW8,Flat),PQ4"),
        ("L2norm,LSH", "NormalizationTransform,IndexLSH"),
    ],
)
def test_kind_is_the_factory_string(factory: str, told: str) -> None:
    assert kind_of(faiss.index_factory(16, factory)) == told
