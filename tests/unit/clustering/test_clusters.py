"""Clusters on disk: found by name, refused when damaged or another datastore's, never half-finished."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.clustering import Clusters, Greedy, KMeans, build_clusters, clusters_of
from fairseq_knn.clustering import kmeans as kmeans_module
from fairseq_knn.clustering.clusters import checked_name
from fairseq_knn.clustering.settings import Settings
from fairseq_knn.datastore import Datastore, DatastoreWriter, ShardedDatastore
from fairseq_knn.errors import ConfigurationError, DatastoreError, UserError
from tests.damage import flip, rewrite

SETTINGS = KMeans(clusters=6, sample=300, iterations=2)


class Interrupted(Exception):
    """What a test ends a run with."""


def interrupted(store: Datastore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin clusters 'x' and stop after the centroids are learned."""

    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(kmeans_module, "_assign", stop)
        with pytest.raises(Interrupted):
            build_clusters(store, "x", settings, device="cpu")


def test_saved_and_loaded(store: Datastore) -> None:
    made = build_clusters(store, "some-NAME_1", SETTINGS, device="cpu")
    loaded = Clusters.load(Datastore.load(store.path), "some-NAME_1")
    np.testing.assert_array_equal(loaded.cluster, made.cluster)
    assert (loaded.name, loaded.count, loaded.cluster.dtype) == ("some-NAME_1", 6, np.int32)
    assert loaded.made == {"method": "kmeans", "clusters": 6, "sample": 300, "iterations": 2, "seed": 1}
    with np.load(store.path / "clusters-some-NAME_1.npz", allow_pickle=False) as content:
        assert str(content["datastore"]) == store.digest
        assert sorted(content.files) == ["cluster", "datastore", "made"]


def test_members() -> None:
    clusters = Clusters("x", np.array([2, 0, 2, 3, 0, 2], np.int32), 5, {})
    assert clusters.sizes.tolist() == [2, 0, 3, 1, 0]
    assert clusters.offsets.tolist() == [0, 2, 2, 5, 6, 6]
    assert clusters.members.tolist() == [1, 4, 0, 2, 5, 3]
    assert (clusters.offsets.dtype, clusters.members.dtype) == (np.int64, np.int32)
    assert clusters.summary() == "5 clusters, 2 of them empty, of 2 entries in the median and up to 3"


def test_several_of_a_store(store: Datastore) -> None:
    assert clusters_of(store) == []
    with pytest.raises(DatastoreError, match="has no clusters 'b', nor any others: make them with"):
        Clusters.load(store, "b")
    build_clusters(store, "c", SETTINGS, device="cpu")
    build_clusters(store, "a", Greedy(backend="torch"), device="cpu")
    assert clusters_of(store) == ["a", "c"]
    with pytest.raises(DatastoreError, match="has no clusters 'b', only a, c: name one of these, or make them with"):
        Clusters.load(store, "b")


@pytest.mark.parametrize("name", ["", ".", "a/b", "../x", "a b", "a.b", "*", "ä"])
def test_names(store: Datastore, name: str) -> None:
    for use in (
        lambda: checked_name(name),
        lambda: build_clusters(store, name, SETTINGS, device="cpu"),
        lambda: Clusters.load(store, name),
    ):
        with pytest.raises(ConfigurationError, match="letters, digits"):
            use()


def test_of_another_datastore(store: Datastore, tmp_path: Path) -> None:
    build_clusters(store, "x", SETTINGS, device="cpu")
    other = Path(shutil.copytree(store.path, tmp_path / "other"))
    rewrite(other, "values", 0, lambda values: values + 1)
    changed = Datastore.load(other)
    for use in (lambda: Clusters.load(changed, "x"), lambda: build_clusters(changed, "x", SETTINGS, device="cpu")):
        with pytest.raises(DatastoreError, match=r"of another datastore .* --name x --overwrite`"):
            use()
    build_clusters(changed, "x", SETTINGS, device="cpu", overwrite=True)
    Clusters.load(changed, "x")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "text", "array", "lacking", "count"])
def test_damaged(store: Datastore, damage: str) -> None:
    build_clusters(store, "x", SETTINGS, device="cpu")
    file = store.path / "clusters-x.npz"
    with np.load(file) as content:
        arrays = dict(content)
    if damage == "flipped":
        flip(file, 1500)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("clusters")
    elif damage == "array":
        with file.open("wb") as target:
            np.save(target, arrays["cluster"])
    elif damage == "lacking":
        np.savez(file, datastore=arrays["datastore"], made=arrays["made"])
    else:
        arrays["made"] = np.array(json.dumps({**json.loads(str(arrays["made"])), "clusters": 3}))
        np.savez(file, **arrays)
    with pytest.raises(
        DatastoreError, match=r"restore it, or make it again with `fairseq-knn cluster \S+ --name x --o"
    ):
        Clusters.load(store, "x")
    build_clusters(store, "x", SETTINGS, device="cpu", overwrite=True)
    assert Clusters.load(store, "x").count == 6


def test_pickles_are_not_read(store: Datastore) -> None:
    build_clusters(store, "x", SETTINGS, device="cpu")
    file = store.path / "clusters-x.npz"
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **{**arrays, "cluster": np.array([{}], object)})
    with pytest.raises(DatastoreError, match="allow_pickle=False"):
        Clusters.load(store, "x")


def test_newer_format(store: Datastore) -> None:
    build_clusters(store, "x", SETTINGS, device="cpu")
    file = store.path / "clusters-x.npz"
    with np.load(file) as content:
        arrays = dict(content)
    arrays["made"] = np.array(json.dumps({**json.loads(str(arrays["made"])), "schema": 2}))
    np.savez(file, **arrays)
    with pytest.raises(DatastoreError, match="has format version 2, this package reads version 1"):
        Clusters.load(store, "x")


def test_finished_ones_are_left_alone(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build_clusters(store, "x", SETTINGS, device="cpu")
    monkeypatch.setattr(kmeans_module, "_learn", pytest.fail)
    lines: list[str] = []
    again = build_clusters(store, "x", SETTINGS, device="cpu", report=lines.append)
    assert "is up to date: 6 clusters" in lines[0]
    np.testing.assert_array_equal(again.cluster, made.cluster)
    assert not list(store.path.glob(".*"))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (KMeans(7, 300, 2), "clusters 6 against 7"),
        (KMeans(6, 300, 2, seed=2), "seed 1 against 2"),
        (Greedy(backend="torch"), "method kmeans against greedy"),
    ],
)
def test_other_settings(store: Datastore, monkeypatch: pytest.MonkeyPatch, other: Settings, told: str) -> None:
    """Neither finished nor unfinished clusters are lost by a slip."""
    interrupted(store, SETTINGS, monkeypatch)
    with pytest.raises(ConfigurationError, match=f"unfinished clusters 'x' with other settings .*{told}"):
        build_clusters(store, "x", other, device="cpu")
    build_clusters(store, "x", SETTINGS, device="cpu")
    with pytest.raises(DatastoreError, match=f"has clusters 'x' with other settings .*{told}"):
        build_clusters(store, "x", other, device="cpu")
    assert build_clusters(store, "x", other, device="cpu", overwrite=True).made["method"] == other.method


def test_overwriting_starts_over(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(store, SETTINGS, monkeypatch)
    lines: list[str] = []
    build_clusters(store, "x", SETTINGS, device="cpu", overwrite=True, report=lines.append)
    assert lines[0].startswith("k-means: 6 clusters from 300 of 600 keys")
    assert not list(store.path.glob(".*"))


@pytest.mark.parametrize("damage", ["state", "datastore"])
def test_unusable_state_is_not_gone_on_with(store: Datastore, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    interrupted(store, SETTINGS, monkeypatch)
    if damage == "state":
        state = store.path / ".clusters-x.state.npz"
        state.write_bytes(state.read_bytes()[:-30])
    else:
        rewrite(store.path, "values", 0, lambda values: values + 1)
    lines: list[str] = []
    build_clusters(Datastore.load(store.path), "x", SETTINGS, device="cpu", report=lines.append)
    assert lines[0].startswith("k-means: 6 clusters from 300 of 600 keys")


def test_another_datastore_in_its_place_has_none(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    build_clusters(store, "done", SETTINGS, device="cpu")
    interrupted(store, SETTINGS, monkeypatch)
    assert isinstance(store, ShardedDatastore)
    (store.path / "my-clusters-x.npz").touch()
    DatastoreWriter(store.path, store.plan, overwrite=True)
    assert [file.name for file in store.path.glob("*clusters*")] == ["my-clusters-x.npz"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"clusters": 601}, "--num-clusters is 601, but the datastore has 600 entries"),
        ({"clusters": 0}, "--num-clusters is 0, but must be at least 1"),
        ({"clusters": 20, "sample": 10}, "--sample is 10, but 20 clusters are to be learned from it"),
        ({"iterations": 0}, "--iterations is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, int], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        KMeans.of_store(600, **settings)


def test_defaults() -> None:
    assert KMeans.of_store(50) == KMeans(1, 50, 20)
    assert KMeans.of_store(100_000) == KMeans(1000, 100_000, 20)
    assert KMeans.of_store(100_000, 10) == KMeans(10, 2560, 20)
    assert KMeans.of_store(100, 10, sample=1000) == KMeans(10, 100, 20)
    with pytest.raises(UserError, match="--neighbours is 0"):
        Greedy(0)
