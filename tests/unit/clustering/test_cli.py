"""`fairseq-knn cluster`, and what `inspect` and `verify` say of clusters."""

import json
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.cli.main import main
from fairseq_knn.clustering import Clusters, KMeans, build_clusters
from fairseq_knn.clustering import kmeans as kmeans_module
from fairseq_knn.datastore import Datastore
from tests import cli
from tests.damage import flip, rewrite


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_in_a_process_of_its_own(store: Datastore) -> None:
    run = cli.run("fairseq-knn", "cluster", store.path, "--num-clusters", 8, "--sample", 300, "--name", "few")
    assert run.status == 0, run.log
    assert "k-means: 8 clusters from 300 of 600 keys, 20 iterations" in run.output
    assert "clusters-few.npz: 8 clusters, of " in run.output
    for told in ("learning centroids", "iteration 20, mean squared distance", "assigning keys"):
        assert told in run.log
    assert Clusters.load(store, "few").made == {
        "method": "kmeans",
        "clusters": 8,
        "sample": 300,
        "iterations": 20,
        "seed": 1,
    }


def test_methods_and_names(store: Datastore, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "cluster", store.path, "--iterations", 3, "--seed", 4)[0] == 0
    status, output, log = call(capsys, "cluster", store.path, "--method", "greedy", "--knn-backend", "torch")
    assert (status, "merging entries" in log) == (0, True)
    assert "greedy merging: 600 entries with 15 neighbours on cpu" in output
    assert Clusters.load(store, "kmeans").made["iterations"] == 3
    assert Clusters.load(store, "kmeans").count == 6
    assert Clusters.load(store, "greedy").made == {
        "method": "greedy",
        "neighbours": 15,
        "seed": 1,
        "backend": "torch",
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--neighbours", 3), "--neighbours is of --method greedy, but not of --method kmeans"),
        (("--method", "greedy", "--sample", 3), "--sample is of --method kmeans, but not of --method greedy"),
        (("--members", "x.pkl", "--seed", 3), "--seed is of --method kmeans and --method greedy, but not of --members"),
        (("--members", "x.pkl", "--method", "greedy"), "pass one of them"),
        (("--members", "x.pkl"), "there is no members file x.pkl"),
        (("--num-clusters", 1000), "but the datastore has 600 entries"),
        (("--name", "a/b"), "clusters cannot be called 'a/b'"),
    ],
)
def test_mistakes(
    store: Datastore, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], told: str
) -> None:
    status, _, log = call(capsys, "cluster", store.path, *arguments)
    assert status == 1
    assert told in log
    assert log.startswith("fairseq-knn: error: ")
    assert len(log.splitlines()) == 1


def test_no_datastore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, log = call(capsys, "cluster", tmp_path)
    assert (status, "there is no datastore in" in log) == (1, True)


def test_inspect(store: Datastore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clusters" not in call(capsys, "inspect", store.path)[1]
    build_clusters(store, "a", KMeans(6, 300, 2), device="cpu")
    build_clusters(store, "b", KMeans(7, 300, 2), device="cpu")
    (store.path / "clusters-b.npz").write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.setattr(kmeans_module, "_assign", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_clusters(store, "c", KMeans(8, 300, 2), device="cpu")
    status, output, _ = call(capsys, "inspect", store.path)
    assert status == 0
    assert "clusters    a: 6 (kmeans, iterations 2, sample 300, seed 1)" in output
    assert "            b: unusable: " in output
    assert "            c: unfinished: run the command that makes them again" in output
    assert "clusters and their members, for RetoMaton" in output
    known = json.loads(call(capsys, "inspect", store.path, "--json")[1])
    assert [(one["name"], one["state"]) for one in known["clusters"]] == [
        ("a", "ready"),
        ("b", "unusable"),
        ("c", "unfinished"),
    ]
    assert known["clusters"][0]["bytes"] == (store.path / "clusters-a.npz").stat().st_size
    assert known["clusters"][0]["made"]["sample"] == 300


def test_verify(store: Datastore, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        build_clusters(store, name, KMeans(6, 300, 2), device="cpu")
    status, output, log = call(capsys, "verify", store.path)
    assert status == 0
    assert "note: every entry is in one of the clusters 'a': 6 clusters, of " in output
    assert "reading: 100%" in log
    flip(store.path / "clusters-b.npz", 1500)
    status, output, _ = call(capsys, "verify", store.path)
    assert status == 1
    (problem,) = [line for line in output.splitlines() if line.startswith("problem")]
    assert "clusters-b.npz cannot be read (Bad CRC-32" in problem
    assert problem.endswith("--name b --overwrite`")


def test_verify_stale(store: Datastore, capsys: pytest.CaptureFixture[str]) -> None:
    build_clusters(store, "a", KMeans(6, 300, 2), device="cpu")
    rewrite(store.path, "values", 0, lambda values: np.roll(values, 1))
    status, output, _ = call(capsys, "verify", store.path)
    assert status == 1
    assert "clusters-a.npz holds the clusters of another datastore" in output
