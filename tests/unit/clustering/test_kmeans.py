"""k-means: Lloyd's algorithm, whatever interrupts it, on keys that are on disk or in an index alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.clustering import KMeans, build_clusters
from fairseq_knn.clustering import kmeans as module
from fairseq_knn.clustering.keys import ClusteredKeys
from fairseq_knn.clustering.unfinished import Unfinished
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index import centroids as centroids_module
from fairseq_knn.index.build import build_index
from fairseq_knn.index.dropping import drop_keys
from tests.damage import flip
from tests.support import write_datastore

CPU = torch.device("cpu")
SETTINGS = KMeans(clusters=12, sample=400, iterations=5)
ROWS = 70  # keys read at a time in these tests


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rows_of", lambda *_: ROWS)


class Interrupted(Exception):
    """What a test ends a run with."""


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int) -> None:
    """Let the call of a function fail that follows *after* others."""
    function, calls = getattr(owner, name), []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(None)
        if len(calls) > after:
            raise Interrupted
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


def hidden(store: Datastore) -> list[str]:
    return sorted(file.name for file in store.path.glob(".*"))


def squared_distances(keys: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """float64 (n, C)."""
    return np.square(keys.astype(np.float64)[:, None] - centroids.astype(np.float64)[None]).sum(2)


def slow_lloyd(keys: np.ndarray, centroids: np.ndarray, iterations: int) -> np.ndarray:
    """In float64, a cluster at a time; clusters without keys stay where they are."""
    moved = centroids.astype(np.float64)
    for _ in range(iterations):
        nearest = squared_distances(keys, moved).argmin(1)
        for number in np.unique(nearest):
            moved[number] = keys[nearest == number].astype(np.float64).mean(0)
    return moved


def learned(store: Datastore, settings: KMeans, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The centroids as they are at the start of every iteration and in the end."""
    seen: list[np.ndarray] = []
    step = module.lloyd_step

    def watched(keys: ClusteredKeys, sample: np.ndarray, centroids: torch.Tensor, *rest: object) -> object:
        result = step(keys, sample, centroids, *rest)  # type: ignore[arg-type]
        seen.extend([centroids.numpy().copy(), result[0].numpy().copy()])
        return result

    monkeypatch.setattr(module, "lloyd_step", watched)
    build_clusters(store, "watched", settings, device="cpu")
    return [*seen[::2], seen[-1]]


def test_equals_slow_lloyd(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KMeans(clusters=12, sample=store.entries, iterations=5)
    steps = learned(store, settings, monkeypatch)
    keys = store.keys(0, store.entries)
    assert len(np.unique(steps[0], axis=0)) == 12
    assert (squared_distances(steps[0], keys).min(1) == 0).all()  # they start at keys
    np.testing.assert_allclose(steps[-1], slow_lloyd(keys, steps[0], 5), atol=1e-5)


def test_every_entry_is_in_the_cluster_of_its_nearest_centroid(
    store: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    centroids = learned(store, SETTINGS, monkeypatch)[-1]
    clusters = build_clusters(store, "watched", SETTINGS, device="cpu")
    distances = squared_distances(store.keys(0, store.entries), centroids)
    own = distances[np.arange(store.entries), clusters.cluster]
    np.testing.assert_allclose(own, distances.min(1), rtol=1e-5)
    assert (clusters.cluster.dtype, clusters.count) == (np.int32, 12)
    for search in (
        centroids_module.ExactCentroids(torch.from_numpy(centroids), CPU),
        centroids_module.IndexedCentroids(torch.from_numpy(centroids)),
    ):
        found, ids = search.nearest(torch.from_numpy(centroids))
        assert ids.tolist() == list(range(12))
        assert found.abs().max() < 1e-5


def test_learns_from_the_sample_alone(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[np.ndarray] = []
    gather = ClusteredKeys.gather

    def watched(self: ClusteredKeys, entries: np.ndarray) -> torch.Tensor:
        read.append(entries)
        return gather(self, entries)

    monkeypatch.setattr(ClusteredKeys, "gather", watched)
    build_clusters(store, "few", KMeans(clusters=3, sample=50, iterations=2), device="cpu")
    assert len(np.unique(np.concatenate(read))) == 50
    assert max(map(len, read)) <= ROWS


def test_equal_runs_are_equal(store: Datastore) -> None:
    first = build_clusters(store, "a", SETTINGS, device="cpu")
    second = build_clusters(store, "b", SETTINGS, device="cpu")
    other = build_clusters(store, "c", KMeans(12, 400, 5, seed=2), device="cpu")
    np.testing.assert_array_equal(first.cluster, second.cluster)
    assert (first.cluster != other.cluster).any()
    files = [(store.path / f"clusters-{name}.npz").read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize("iteration", [0, 1, 4])
def test_resumed_while_learning(store: Datastore, monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    build_clusters(store, "whole", SETTINGS, device="cpu")
    with monkeypatch.context() as patched:
        interrupt(patched, module, "lloyd_step", iteration)
        with pytest.raises(Interrupted):
            build_clusters(store, "resumed", SETTINGS, device="cpu")
    lines: list[str] = []
    with monkeypatch.context() as patched:
        interrupt(patched, module, "lloyd_step", 5 - iteration)  # no iteration is done twice
        build_clusters(store, "resumed", SETTINGS, device="cpu", report=lines.append)
    assert (f"going on with k-means after iteration {iteration} of 5" in lines) == (iteration > 0)
    files = [(store.path / f"clusters-{name}.npz").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]
    assert hidden(store) == []


@pytest.mark.parametrize("block", [0, 1, 5, 8])
@pytest.mark.parametrize("torn", [0, 10, 280])
def test_resumed_while_assigning(store: Datastore, monkeypatch: pytest.MonkeyPatch, block: int, torn: int) -> None:
    """Also when the last block did not reach the disk as a whole."""
    build_clusters(store, "whole", SETTINGS, device="cpu")
    with monkeypatch.context() as patched:
        interrupt(patched, Unfinished, "assign", block)
        with pytest.raises(Interrupted):
            build_clusters(store, "resumed", SETTINGS, device="cpu")
    assigned = store.path / ".clusters-resumed.assigned"
    if block:
        content = assigned.read_bytes()
        assert len(content) == 4 * ROWS * block
        assigned.write_bytes(content[: len(content) - torn] + bytes(torn))
    with monkeypatch.context() as patched:
        patched.setattr(module, "lloyd_step", pytest.fail)
        interrupt(patched, Unfinished, "assign", 9 - max(0, block - 1))
        build_clusters(store, "resumed", SETTINGS, device="cpu")
    files = [(store.path / f"clusters-{name}.npz").read_bytes() for name in ("whole", "resumed")]
    assert files[0] == files[1]
    assert hidden(store) == []


def test_equal_keys_leave_no_cluster_without_cause(tmp_path: Path) -> None:
    """Three places of unequal weight, four clusters: the one that starts empty takes half of another."""
    keys = np.repeat(np.eye(4)[:3] * 4, [50, 5, 5], axis=0)
    keys[:50, 3] = np.linspace(-1, 1, 50)
    keys[:25, 3] = -1
    store = write_datastore(tmp_path / "store", keys, np.full(60, 4))
    clusters = build_clusters(store, "four", KMeans(4, 60, iterations=10), device="cpu")
    assert (clusters.sizes > 0).all()
    same = write_datastore(tmp_path / "same", np.ones((60, 4)), np.full(60, 4))
    clusters = build_clusters(same, "two", KMeans(2, 60, iterations=3), device="cpu")
    assert sorted(clusters.sizes) == [0, 60]
    assert "1 of them empty" in clusters.summary()


def test_many_centroids_are_searched_by_an_index(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = build_clusters(store, "exact", SETTINGS, device="cpu")
    monkeypatch.setattr(centroids_module, "EXACT_CENTROIDS", 10)
    lines: list[str] = []
    indexed = build_clusters(store, "indexed", SETTINGS, device="cpu", report=lines.append)
    np.testing.assert_array_equal(indexed.cluster, exact.cluster)  # so few that the index is exact
    assert any("of 600 keys 100.0% get the nearest one" in line for line in lines)


@pytest.mark.parametrize("kind", [centroids_module.ExactCentroids, centroids_module.IndexedCentroids])
def test_a_key_that_is_nan_is_near_the_first(kind: type) -> None:
    centroids = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    search = kind(centroids, CPU) if kind is centroids_module.ExactCentroids else kind(centroids)
    assert search.nearest(torch.tensor([[torch.nan] * 4, centroids[7].tolist()]))[1].tolist() == [0, 7]


def test_recall_tells_a_search_that_errs() -> None:
    centroids = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))

    class Wrong(centroids_module.ExactCentroids):
        def nearest(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            distances, ids = super().nearest(keys)
            ids[:10] = (ids[:10] + 1) % 50
            return distances, ids

    assert centroids_module.centroid_recall(Wrong(centroids, CPU), centroids, centroids, CPU) == pytest.approx(0.8)


@pytest.mark.parametrize("factory", ["IVF8,PQ3x4fsr,Refine(SQfp16)", "Pad8,IVF8,PQ2x4fsr,Refine(SQfp16)", "Flat"])
def test_dropped_keys_come_from_the_index(store: Datastore, factory: str) -> None:
    """An index that re-ranks has them as they were stored."""
    build_index(store, factory, device="cpu", nprobe=8, min_recall=0)
    before = build_clusters(store, "before", SETTINGS, device="cpu")
    drop_keys(store)
    dropped = Datastore.load(store.path)
    after = build_clusters(dropped, "after", SETTINGS, device="cpu")
    np.testing.assert_array_equal(after.cluster, before.cluster)


@pytest.mark.parametrize("factory", ["SQ8", "IVF8,SQ8", "IVF8,PQ3x4", "PQ3x4fs", "PCA5,IVF8,SQ8"])
def test_dropped_keys_come_from_codes(store: Datastore, factory: str) -> None:
    build_index(store, factory, device="cpu", nprobe=8, min_recall=0)
    keys = torch.from_numpy(store.keys(0, store.entries)).float()
    drop_keys(store)
    dropped = Datastore.load(store.path)
    decoded = ClusteredKeys(dropped).gather(np.arange(store.entries))
    assert (decoded - keys).square().mean() < 0.5 * keys.var()
    assert torch.equal(ClusteredKeys(dropped).gather(np.array([7, 3])), decoded[[7, 3]])
    assert torch.equal(ClusteredKeys(dropped).range(5, 9), decoded[5:9])
    assert (build_clusters(dropped, "after", SETTINGS, device="cpu").sizes > 0).any()


def test_dropped_keys_that_the_index_does_not_give_back(store: Datastore) -> None:
    build_index(store, "IVF8,PQ3x4fsr", device="cpu", nprobe=8, min_recall=0)
    drop_keys(store)
    with pytest.raises(
        SearchIndexError, match=r"fast scan without re-ranking, cannot give them back: .* keep its keys"
    ):
        build_clusters(Datastore.load(store.path), "x", SETTINGS, device="cpu")


def test_dropped_keys_of_a_damaged_index(store: Datastore) -> None:
    build_index(store, "IVF8,SQ8", device="cpu", nprobe=8, min_recall=0)
    drop_keys(store)
    flip(store.path / "index.faiss", -20)
    with pytest.raises(SearchIndexError, match="is damaged"):
        build_clusters(Datastore.load(store.path), "x", SETTINGS, device="cpu")


def test_damaged_keys(store: Datastore) -> None:
    """Nothing that was learned from them is kept."""
    flip(store.path / "shards" / "keys-00002.npy")
    with pytest.raises(DatastoreError, match=r"keys-00002.npy has checksum"):
        build_clusters(store, "x", SETTINGS, device="cpu")
    assert hidden(store) == []
    assert not list(store.path.glob("clusters-*"))


def test_mean_distance_falls(store: Datastore) -> None:
    keys, sample = ClusteredKeys(store), np.arange(store.entries)
    centroids = keys.gather(sample[:12])
    told = []
    for _ in range(6):
        centroids, distance = module.lloyd_step(keys, sample, centroids, CPU, ROWS)
        told.append(distance)
    assert told == sorted(told, reverse=True)
