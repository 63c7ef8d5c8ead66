"""An index that is built in parts, by one process or by many, is that of a build at once."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import Datastore, DatastoreWriter
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index import filling
from fairseq_knn.index.array_tasks import build_part, train_index
from fairseq_knn.index.build import build_index
from tests.support import write_datastore

INVERTED = "IVF8,PQ3x4fsr,Refine(SQfp16)"
ENTRIES = 1499  # so that parts end within shards, and lists within blocks
FINISHED = ["index.faiss", "index.json", "manifest.json", "shards"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(30, 12))[rng.integers(30, size=ENTRIES)] + 0.5 * rng.normal(size=(ENTRIES, 12))
    path = tmp_path_factory.mktemp("parts") / "store"
    write_datastore(path, keys, np.arange(ENTRIES) % 1000, shard_sentences=50)
    return path


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Datastore:
    return Datastore.load(shutil.copytree(written, tmp_path / "store"))


@pytest.fixture
def whole(written: Path, tmp_path: Path) -> Datastore:
    return Datastore.load(shutil.copytree(written, tmp_path / "whole"))


def names(datastore: Datastore) -> list[str]:
    return sorted(path.name for path in datastore.path.iterdir())


def result(datastore: Datastore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in datastore.path.glob("index.*")}


@pytest.mark.parametrize(
    ("spec", "num_shards"),
    [
        (INVERTED, 1),
        (INVERTED, 3),
        ("Pad16,IVF8,PQ4x4fsr,Refine(SQfp16)", 4),
        ("IVF8_HNSW8,SQ8", 3),
        ("IVF8,RaBitQ", 3),
        ("PCA8,IVF8,Flat", 2),
        ("flat", 3),
    ],
)
def test_tasks_of_an_array_give_what_one_process_gives(
    store: Datastore, whole: Datastore, spec: str, num_shards: int
) -> None:
    build_index(whole, spec, device="cpu", min_recall=0)
    train_index(store, spec, device="cpu")
    for part in reversed(range(num_shards)):
        build_part(store, spec, num_shards=num_shards, shard_id=part, device="cpu")
    assert names(store) != FINISHED
    build_index(store, spec, device="cpu", min_recall=0)
    assert result(store) == result(whole)
    assert names(store) == FINISHED


def test_one_process_makes_all_parts(store: Datastore, whole: Datastore) -> None:
    build_index(whole, INVERTED, device="cpu")
    lines: list[str] = []
    build_index(store, INVERTED, device="cpu", num_shards=4, report=lines.append)
    assert sum(line.startswith("building part") for line in lines) == 4
    assert result(store) == result(whole)
    assert names(store) == FINISHED


def test_lists_that_end_with_whole_blocks(tmp_path: Path) -> None:
    """As many entries as a block has bytes: where faiss itself writes beyond a list."""
    keys = np.repeat(np.eye(4, 12), 64, axis=0)[np.arange(256).reshape(4, 64).T.ravel()]
    keys = np.concatenate([keys, keys[:100]])
    stores = [write_datastore(tmp_path / name, keys, np.arange(356)) for name in ("a", "b")]
    for made, num_shards in zip(stores, (None, 3), strict=True):
        build_index(made, "IVF4,PQ3x4fs", device="cpu", min_recall=0, num_shards=num_shards)
    assert result(stores[0]) == result(stores[1])


def test_more_parts_than_entries(tmp_path: Path) -> None:
    few = write_datastore(tmp_path / "few", np.eye(3), np.arange(3))
    build_index(few, "flat", device="cpu", num_shards=5)
    assert names(few) == FINISHED


def test_parts_that_are_done_are_left_alone(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    train_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(filling, "_train", pytest.fail)
        patch.setattr(Datastore, "keys", pytest.fail)
        lines: list[str] = []
        train_index(store, INVERTED, device="cpu", report=lines.append)
        build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu", report=lines.append)
        assert "is trained" in lines[0]
        assert "part 0 of 2" in lines[1]
        assert "is there already" in lines[1]
    build_part(store, INVERTED, num_shards=2, shard_id=1, device="cpu")
    build_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=1, device="cpu", report=lines.append)
    train_index(store, INVERTED, device="cpu", report=lines.append)
    assert all("is finished already" in line for line in lines[2:])
    assert names(store) == FINISHED


def test_missing_parts_are_named(store: Datastore) -> None:
    train_index(store, INVERTED, device="cpu")
    for part in (0, 3):
        build_part(store, INVERTED, num_shards=5, shard_id=part, device="cpu")
    expected = r"of the 5 parts .* 2 are there; missing: 1-2, 4: run `.* --num-shards 5 --shard-id 1` for each of them"
    with pytest.raises(SearchIndexError, match=expected) as caught:
        build_index(store, INVERTED, device="cpu")
    assert "\n" not in str(caught.value)
    # Asked for the same number in one process, it makes them.
    build_index(store, INVERTED, device="cpu", num_shards=5)
    assert names(store) == FINISHED


def test_a_damaged_part_is_noticed_and_made_again(store: Datastore, whole: Datastore) -> None:
    build_index(whole, INVERTED, device="cpu")
    train_index(store, INVERTED, device="cpu")
    for part in range(2):
        build_part(store, INVERTED, num_shards=2, shard_id=part, device="cpu")
    file = store.path / ".index.faiss.part-1-of-2"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SearchIndexError, match=r"part-1-of-2 was damaged and is deleted: .* --shard-id 1`"):
        build_index(store, INVERTED, device="cpu")
    with pytest.raises(SearchIndexError, match="missing: 1: run"):
        build_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=1, device="cpu")
    build_index(store, INVERTED, device="cpu")
    assert result(store) == result(whole)


def test_parts_of_other_settings_are_not_merged(store: Datastore, whole: Datastore) -> None:
    build_index(whole, INVERTED, device="cpu")
    train_index(store, "IVF4,SQ8", device="cpu")
    for part in range(2):
        build_part(store, "IVF4,SQ8", num_shards=2, shard_id=part, device="cpu")
    build_index(store, INVERTED, device="cpu")
    assert result(store) == result(whole)
    assert names(store) == FINISHED


def test_a_trained_index_is_used_without_parts_too(
    store: Datastore, whole: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(whole, INVERTED, device="cpu")
    train_index(store, INVERTED, device="cpu")
    monkeypatch.setattr(filling, "_train", pytest.fail)
    build_index(store, INVERTED, device="cpu")
    assert result(store) == result(whole)


def test_training_comes_first(store: Datastore) -> None:
    with pytest.raises(SearchIndexError, match=r"is not trained for .*: run `fairseq-knn build-index .* --train-only`"):
        build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")
    train_index(store, INVERTED, device="cpu", seed=2)
    with pytest.raises(SearchIndexError, match="is not trained for"):
        build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")


def test_what_cannot_be_merged_is_refused_at_once(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_train", pytest.fail)
    for attempt in (
        lambda: train_index(store, "HNSW8,Flat", device="cpu"),
        lambda: build_part(store, "HNSW8,Flat", num_shards=2, shard_id=0, device="cpu"),
        lambda: build_index(store, "HNSW8,Flat", device="cpu", num_shards=2),
    ):
        with pytest.raises(SearchIndexError, match=r"HNSW8,Flat cannot be built in parts, .* leave out --num-shards"):
            attempt()
    assert names(store) == ["manifest.json", "shards"]


KILLED = """
import os, signal, sys
from fairseq_knn.datastore import Datastore
from fairseq_knn.index import filling
from fairseq_knn.index.array_tasks import build_part
from fairseq_knn.index.checkpoint import Checkpoint
filling._CHUNK_BYTES, filling._CHECKPOINT_SECONDS = 100 * 4 * 12, 0.0
save, saved = Checkpoint.save, []
def save_and_die(self, index):
    save(self, index)
    saved.append(index.ntotal)
    if len(saved) == 1:  # later ones wait for ten times as long as this one took
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoint.save = save_and_die
build_part(Datastore.load(sys.argv[1]), sys.argv[2], num_shards=2, shard_id=1, device="cpu")
"""


def test_a_killed_part_goes_on(store: Datastore, whole: Datastore) -> None:
    build_index(whole, INVERTED, device="cpu")
    train_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.path), INVERTED],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(SearchIndexError, match="missing: 1: run"):
        build_index(store, INVERTED, device="cpu")
    lines: list[str] = []
    build_part(store, INVERTED, num_shards=2, shard_id=1, device="cpu", report=lines.append)
    going_on = re.match(r"going on with part 1 of 2 .*: (\d+) of 750 keys are in it", lines[0])
    assert going_on is not None
    assert 0 < int(going_on[1]) < 750
    build_index(store, INVERTED, device="cpu")
    assert result(store) == result(whole)


def test_below_min_recall_parts_are_merged_once(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchIndexError, match="less than --min-recall"):
        build_index(store, INVERTED, device="cpu", num_shards=3, nprobe=1, min_recall=0.999)
    monkeypatch.setattr("fairseq_knn.index.making.merge_indexes", pytest.fail)
    build_index(store, INVERTED, device="cpu", nprobe=8, min_recall=0)
    assert names(store) == FINISHED


def test_overwriting_begins_anew(store: Datastore) -> None:
    train_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")
    lines: list[str] = []
    build_index(store, INVERTED, device="cpu", overwrite=True, report=lines.append)
    assert lines[:2] == [f"building {INVERTED} for 1,499 keys of dimension 12", "training with 1,499 keys"]
    assert names(store) == FINISHED


def test_a_new_datastore_has_no_old_parts(store: Datastore) -> None:
    train_index(store, INVERTED, device="cpu")
    build_part(store, INVERTED, num_shards=2, shard_id=0, device="cpu")
    assert store.plan is not None
    DatastoreWriter(store.path, store.plan, overwrite=True)
    assert names(store) == ["shards"]


def test_commands(store: Datastore, whole: Datastore, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--knn-index", INVERTED, "--knn-device", "cpu"]
    assert main(["build-index", str(whole.path), *options]) == 0
    command = ["build-index", str(store.path), *options]
    assert main([*command, "--train-only"]) == 0
    assert main([*command, "--num-shards", "2", "--shard-id", "0"]) == 0
    assert main(command) == 1
    assert "missing: 1" in capsys.readouterr().err
    assert main([*command, "--num-shards", "2", "--shard-id", "1"]) == 0
    assert main(command) == 0
    assert result(store) == result(whole)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--shard-id", "1"], "say how many with --num-shards"),
        (["--shard-id", "2", "--num-shards", "2"], "--shard-id is 2, but of --num-shards 2 the last is 1"),
        (["--num-shards", "0"], "--num-shards is 0, but must be at least 1"),
        (["--train-only", "--num-shards", "2"], "leave out --num-shards and --shard-id"),
        (["--train-only", "--drop-keys"], "--drop-keys deletes the keys, but after --train-only they are still needed"),
        (["--on-disk", "--drop-keys"], "--drop-keys deletes the keys, but with --on-disk the search needs the keys"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(["build-index", str(tmp_path), *options]) == 1
    assert told in capsys.readouterr().err
