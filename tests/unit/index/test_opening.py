"""Where index and keys are while they are searched does not change what is found."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index import LOADS, open_backend, torch_backend
from fairseq_knn.index.build import build_index
from fairseq_knn.index.stored_keys import ResidentKeys, StreamedKeys
from tests.support import write_datastore


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    keys = np.random.default_rng(0).normal(size=(2000, 16))
    made = write_datastore(tmp_path, keys, np.arange(2000) % 1000, shard_sentences=40)
    build_index(made, "IVF16,PQ4x4fsr,Refine(SQfp16)", device="cpu", nprobe=16, min_recall=0)
    return made


def mapped_files() -> str:
    return Path("/proc/self/maps").read_text()


def test_an_index_on_disk_finds_what_one_in_memory_finds(store: Datastore) -> None:
    queries = torch.from_numpy(store.keys(0, 100)).float() + 0.1
    file = str(store.path / "index.faiss")
    in_memory = open_backend(store, backend="faiss", device="cpu", load="ram")
    assert file not in mapped_files()
    mapped = open_backend(store, backend="faiss", device="cpu", load="mmap")
    assert file in mapped_files()
    for one, other in zip(in_memory.search(queries, 8), mapped.search(queries, 8), strict=True):
        assert torch.equal(one, other)


def test_keys_on_disk_or_in_memory(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "_CPU_RESIDENT", 1000)  # too many keys for that
    queries = torch.from_numpy(store.keys(0, 100)).float() + 0.1
    found = []
    for load, kind in (("mmap", StreamedKeys), ("ram", ResidentKeys)):
        backend = open_backend(store, backend="torch", device="cpu", load=load)
        assert isinstance(backend, torch_backend.TorchBackend)
        assert isinstance(backend._keys, kind)
        found.append(backend.search(queries, 8))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_unknown_names(store: Datastore) -> None:
    assert LOADS == ("mmap", "ram")
    with pytest.raises(ValueError, match="unknown way to load 'disk', expected one of mmap, ram"):
        open_backend(store, load="disk")
    with pytest.raises(ValueError, match="unknown search backend 'scann'"):
        open_backend(store, backend="scann")
