"""The least effort that finds enough is chosen, kept with the index, and used when it is opened."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index import effort, open_backend
from fairseq_knn.index.build import build_index
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.record import IndexRecord
from tests.support import write_datastore

FACTORY = "IVF64,PQ8x4fsr,Refine(SQfp16)"


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(60, 16))[rng.integers(60, size=4000)] + 0.4 * rng.normal(size=(4000, 16))
    return write_datastore(tmp_path, keys, np.arange(4000) % 1000, shard_sentences=100)


@pytest.mark.parametrize("enough", [0.5, 0.9, 0.99, 2.0])
def test_the_least_that_is_enough(store: Datastore, enough: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "ENOUGH", enough)
    record = build_index(store, FACTORY, device="cpu", min_recall=0)
    assert record.nprobe is not None
    assert record.k_factor is not None
    recalls = {}
    for lists, factor in effort._EFFORTS:
        cost = lists + factor
        # With these settings by hand, from the same index.
        monkeypatch.setattr(effort, "_EFFORTS", [(lists, factor)])
        recalls[lists, factor] = build_index(store, FACTORY, device="cpu", min_recall=0, k=8, overwrite=True).recall
        if recalls[lists, factor] >= enough:
            assert cost == record.nprobe + record.k_factor
            break
    assert record.recall == max(recalls.values())


def test_it_is_used_when_the_index_is_opened(store: Datastore) -> None:
    build_index(store, FACTORY, device="cpu", min_recall=0)
    record = IndexRecord.load(store)
    opened = open_backend(store, backend="faiss", device="cpu")
    assert isinstance(opened, FaissSearch)
    assert opened.effort == (record.nprobe, record.k_factor)
    asked = open_backend(store, backend="faiss", device="cpu", nprobe=3)
    assert isinstance(asked, FaissSearch)
    assert asked.effort == (3, record.k_factor)


def test_indexes_without_lists_or_re_ranking(store: Datastore) -> None:
    assert build_index(store, "flat", device="cpu").nprobe is None
    record = build_index(store, "IVF8,SQ8", device="cpu", min_recall=0.5)
    assert record.nprobe in (4, 8)
    assert record.k_factor is None


def test_few_and_many_neighbours(store: Datastore) -> None:
    build_index(store, FACTORY, device="cpu", min_recall=0)
    opened = open_backend(store, backend="faiss", device="cpu")
    for k in (1, 8, 100, 1000):
        distances, ids = opened.search(torch.from_numpy(store.keys(0, 5)).float(), k)
        assert distances.shape == ids.shape == (5, k)
        assert torch.equal(ids[:, 0], torch.arange(5))
