"""Greedy merging: as a plain loop over exact neighbours, whatever the blocks and interruptions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.clustering import Greedy, build_clusters, greedy
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index import SearchBackend
from fairseq_knn.index.build import build_index
from fairseq_knn.index.dropping import drop_keys
from fairseq_knn.index.torch_backend import TorchBackend
from tests.support import write_datastore

SETTINGS = Greedy(neighbours=4, backend="torch")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "_BLOCK", 37)


class Interrupted(Exception):
    """What a test ends a run with."""


def plain_loop(store: Datastore, neighbours: int, seed: int) -> list[int]:
    """Entry by entry, with neighbours sorted by their float64 distances."""
    keys = store.keys(0, store.entries).astype(np.float64)
    order = np.arange(store.entries, dtype=np.int32)
    np.random.default_rng(seed).shuffle(order)
    cluster = [-1] * store.entries
    count = 0
    for entry in order.tolist():
        if cluster[entry] >= 0:
            continue
        cluster[entry] = count
        nearest = np.argsort(np.square(keys - keys[entry]).sum(1), kind="stable")
        for other in [one for one in nearest.tolist() if one != entry][:neighbours]:
            if cluster[other] < 0 and store.values[other] == store.values[entry]:
                cluster[other] = count
        count += 1
    return cluster


@pytest.mark.parametrize("neighbours", [1, 4, 15])
@pytest.mark.parametrize("block", [1, 37, 1000])
def test_equals_plain_loop(store: Datastore, monkeypatch: pytest.MonkeyPatch, neighbours: int, block: int) -> None:
    monkeypatch.setattr(greedy, "_BLOCK", block)
    settings = Greedy(neighbours, seed=5, backend="torch")
    clusters = build_clusters(store, "x", settings, device="cpu")
    expected = plain_loop(store, neighbours, seed=5)
    assert clusters.cluster.tolist() == expected
    assert clusters.count == max(expected) + 1
    assert clusters.sizes.max() > 1
    assert clusters.sizes.min() >= 1


def test_a_cluster_has_one_value(store: Datastore) -> None:
    clusters = build_clusters(store, "x", SETTINGS, device="cpu")
    for start, end in zip(clusters.offsets, clusters.offsets[1:], strict=False):
        assert len(np.unique(store.values[clusters.members[start:end]])) == 1


def test_equal_keys(tmp_path: Path) -> None:
    """The entry itself is not always among its nearest; missing neighbours join nothing."""
    store = write_datastore(tmp_path / "same", np.ones((50, 3)), np.full(50, 4))
    clusters = build_clusters(store, "x", Greedy(neighbours=4, backend="torch"), device="cpu")
    assert (clusters.sizes <= 5).all()
    few = write_datastore(tmp_path / "few", np.eye(3), np.array([4, 4, 5]))
    clusters = build_clusters(few, "x", Greedy(neighbours=15, backend="torch"), device="cpu")
    assert clusters.cluster[0] == clusters.cluster[1] != clusters.cluster[2]


def test_merging_a_block() -> None:
    """By hand: entry 0 founds, 3 is taken by 0 before it can found, 5 is in a cluster, 6 has another value."""
    values = np.array([4, 4, 4, 4, 4, 4, 5, 4])
    cluster = np.array([-1, -1, -1, -1, -1, 0, -1, -1], np.int32)
    founders = np.array([0, 3, 2])
    ids = np.array([[0, 3, 5, 6, 1], [3, 7, 4, 1, 2], [4, 3, 0, 7, 2]])
    assert greedy.merge_block(founders, ids, values, cluster, 1, neighbours=3) == 3
    #   0: 3 joins (5 is taken, 6 differs, 1 is too far); 3: nothing any more; 2: of 4, 3, 0 only 4
    assert cluster.tolist() == [1, -1, 2, 1, 2, 0, -1, -1]


@pytest.mark.parametrize("searches", [0, 1, 7])
def test_resumed(store: Datastore, monkeypatch: pytest.MonkeyPatch, searches: int) -> None:
    whole = build_clusters(store, "whole", SETTINGS, device="cpu")
    monkeypatch.setattr(greedy, "_SAVE_SECONDS", -1.0)
    search, calls = TorchBackend.search, []

    def counted(self: SearchBackend, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(queries))
        if len(calls) > searches:
            raise Interrupted
        return search(self, queries, k)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(TorchBackend, "search", counted)
        patched.setattr("time.monotonic", iter(range(10**6)).__next__)
        with pytest.raises(Interrupted):
            build_clusters(store, "resumed", SETTINGS, device="cpu")
    lines: list[str] = []
    resumed = build_clusters(store, "resumed", SETTINGS, device="cpu", report=lines.append)
    assert ("going on" in lines[0]) == (searches > 0)
    np.testing.assert_array_equal(resumed.cluster, whole.cluster)
    files = [(store.path / f"clusters-{name}.npz").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]
    assert not list(store.path.glob(".*"))


def test_through_an_index_without_keys(store: Datastore) -> None:
    build_index(store, "IVF8,PQ3x4fsr,Refine(SQfp16)", device="cpu", nprobe=8, min_recall=0)
    exact = build_clusters(store, "exact", SETTINGS, device="cpu")
    drop_keys(store)
    dropped = Datastore.load(store.path)
    found = build_clusters(dropped, "found", Greedy(neighbours=4), device="cpu")
    assert np.mean(found.cluster == exact.cluster) > 0.9
    assert (found.sizes >= 1).all()


def test_without_an_index(store: Datastore) -> None:
    with pytest.raises(SearchIndexError, match=r"has no search index: build one with .* or pass --knn-backend torch"):
        build_clusters(store, "x", Greedy(backend="faiss"), device="cpu")
