"""Building an index: measured, resumable, and never half-finished."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index import build as build_module
from fairseq_knn.index import factory as factory_module
from fairseq_knn.index import filling, open_backend
from fairseq_knn.index.build import build_index
from tests.support import write_datastore

INVERTED = "IVF8,PQ3x4fsr,Refine(SQfp16)"
FINISHED = ["index.faiss", "index.json", "manifest.json", "shards"]


def store(path: Path, entries: int = 1500, dimension: int = 12) -> Datastore:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(30, dimension))
    keys = centres[rng.integers(30, size=entries)] + 0.5 * rng.normal(size=(entries, dimension))
    return write_datastore(path, keys, np.arange(entries) % 1000, shard_sentences=50)


def names(datastore: Datastore) -> list[str]:
    return sorted(path.name for path in datastore.path.iterdir())


def result(datastore: Datastore) -> tuple[bytes, bytes]:
    return (datastore.path / "index.faiss").read_bytes(), (datastore.path / "index.json").read_bytes()


@pytest.mark.parametrize("entries", [1, 2, 100])
def test_auto_builds_for_few_entries(tmp_path: Path, entries: int) -> None:
    datastore = store(tmp_path / "store", entries)
    record = build_index(datastore, device="cpu")
    assert (record.settings.factory, record.recall, record.nprobe) == ("Flat", 1.0, None)
    assert open_backend(datastore, backend="faiss", device="cpu").entries == entries


@pytest.mark.parametrize("dimension", [5, 13])
def test_auto_builds_for_many_entries_of_any_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimension: int
) -> None:
    monkeypatch.setattr(factory_module, "EXACT_SCAN", 0)
    datastore = store(tmp_path / "store", dimension=dimension)
    record = build_index(datastore, device="cpu")
    assert record.settings.factory.startswith("Pad")
    assert record.recall > 0.95
    assert names(datastore) == FINISHED


def test_record_holds_what_was_built_and_measured(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store")
    lines: list[str] = []
    record = build_index(datastore, INVERTED, device="cpu", nprobe=4, k=5, train_size=700, report=lines.append)
    settings = record.settings
    assert (settings.factory, settings.entries, settings.dimension) == (INVERTED, 1500, 12)
    assert (settings.datastore, settings.seed, settings.train_size) == (datastore.digest, 1, 700)
    assert (record.nprobe, record.k, record.k_factor, record.found) == (4, 5, 16, 32)
    assert record.bytes == (datastore.path / "index.faiss").stat().st_size
    assert type(record).load(datastore) == record
    record.verify(datastore)
    assert lines[:2] == [f"building {INVERTED} for 1,500 keys of dimension 12", "training with 700 keys"]
    assert "recall@5" in lines[2]
    assert "ms per 128 queries on cpu" in lines[2]


def test_checksum_is_of_the_file(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store", 50)
    record = build_index(datastore, device="cpu")
    path = datastore.path / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SearchIndexError, match="has checksum"):
        record.verify(datastore)


def test_damaged_index_is_built_anew(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store")
    build_index(datastore, INVERTED, device="cpu")
    before = result(datastore)
    path = datastore.path / "index.faiss"
    path.write_bytes(before[0][:-100] + bytes(100))
    build_index(datastore, INVERTED, device="cpu")
    assert result(datastore) == before


def test_equal_builds_are_equal(tmp_path: Path) -> None:
    first, second = store(tmp_path / "a"), store(tmp_path / "b")
    for datastore in (first, second):
        build_index(datastore, INVERTED, device="cpu")
    assert result(first) == result(second)


def test_finished_index_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = store(tmp_path / "store")
    record = build_index(datastore, INVERTED, device="cpu")
    before = result(datastore)
    monkeypatch.setattr(filling, "_train", pytest.fail)
    monkeypatch.setattr(build_module, "RecallTest", pytest.fail)
    lines: list[str] = []
    assert build_index(datastore, INVERTED, device="cpu", report=lines.append) == record
    assert "is up to date" in lines[0]
    assert result(datastore) == before
    assert names(datastore) == FINISHED


def test_other_search_settings_are_only_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = store(tmp_path / "store")
    build_index(datastore, INVERTED, device="cpu")
    index = result(datastore)[0]
    monkeypatch.setattr(filling, "_train", pytest.fail)
    record = build_index(datastore, INVERTED, device="cpu", nprobe=4, k=3)
    assert (record.nprobe, record.k) == (4, 3)
    assert result(datastore)[0] == index
    assert names(datastore) == FINISHED


def test_other_build_settings_or_overwrite_build_anew(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store")
    lines: list[str] = []
    for settings in ({}, {"seed": 2}, {"spec": "IVF4,SQ8"}, {"spec": "IVF4,SQ8", "overwrite": True}):
        build_index(datastore, **{"spec": INVERTED, "device": "cpu", "report": lines.append, **settings})
    assert sum(line.startswith("building") for line in lines) == 4
    assert names(datastore) == FINISHED
    open_backend(datastore, backend="faiss", device="cpu")


def test_below_min_recall_nothing_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = store(tmp_path / "store")
    with pytest.raises(
        SearchIndexError, match=r"with --knn-nprobe 1, less than --min-recall 0\.99: raise --knn-nprobe"
    ):
        build_index(datastore, INVERTED, device="cpu", nprobe=1, min_recall=0.99)
    with pytest.raises(SearchIndexError, match="has no search index"):
        open_backend(datastore, backend="faiss", device="cpu")
    monkeypatch.setattr(filling, "_train", pytest.fail)
    build_index(datastore, INVERTED, device="cpu", nprobe=8, min_recall=0.99)
    assert names(datastore) == FINISHED


def test_below_min_recall_the_index_measured_before_stays(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store")
    build_index(datastore, INVERTED, device="cpu", nprobe=8)
    before = result(datastore)
    with pytest.raises(SearchIndexError, match="less than --min-recall"):
        build_index(datastore, INVERTED, device="cpu", nprobe=1, min_recall=0.99)
    assert result(datastore) == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nonsense", "cannot make an index 'nonsense' .*could not parse index string nonsense.*pass --knn-index auto"),
        ("IVF8,PQ5", "cannot make an index .*should be a multiple of the number of subquantizers"),
        ("IVF64,Flat", r"needs at least 64 keys to train with.*\(40 entries\) has 40: pass --knn-index auto"),
        ("IVF2,PQ4", "needs at least 256 keys to train with"),
        ("IDMap,Flat", "cannot add keys to IDMap,Flat"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(SearchIndexError, match=message) as caught:
        build_index(store(tmp_path / "store", 40), spec, device="cpu")
    assert "\n" not in str(caught.value)


def test_damaged_keys_are_noticed(tmp_path: Path) -> None:
    datastore = store(tmp_path / "store")
    path = datastore.path / "shards" / "keys-00002.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DatastoreError, match=r"keys-00002\.npy has checksum"):
        build_index(datastore, INVERTED, device="cpu")
    assert names(datastore) == ["manifest.json", "shards"]


class Interrupted(Exception):
    pass


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "_CHUNK_BYTES", 100 * 4 * 12)
    monkeypatch.setattr(filling, "_CHECKPOINT_SECONDS", 0.0)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("moment", [1, 2, 9])
def test_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    whole, broken = store(tmp_path / "whole"), store(tmp_path / "broken")
    build_index(whole, INVERTED, device="cpu")
    calls = 0

    def keys(self: Datastore, start: int, stop: int) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Interrupted
        return read(self, start, stop)

    read = Datastore.keys
    monkeypatch.setattr(Datastore, "keys", keys)
    with pytest.raises(Interrupted):
        build_index(broken, INVERTED, device="cpu")
    assert not (broken.path / "index.json").exists()
    lines: list[str] = []
    build_index(broken, INVERTED, device="cpu", report=lines.append)
    assert lines[0].startswith("going on with")
    assert (moment == 1) == (": 0 are in it" in lines[0])
    assert result(broken) == result(whole)
    assert names(broken) == FINISHED


@pytest.mark.usefixtures("small_steps")
def test_checkpoint_of_other_settings_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = store(tmp_path / "whole"), store(tmp_path / "broken")
    build_index(whole, INVERTED, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(ShardedDatastore, "verify", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            build_index(broken, INVERTED, device="cpu", seed=5)
    lines: list[str] = []
    build_index(broken, INVERTED, device="cpu", report=lines.append)
    assert lines[0].startswith("building")
    assert result(broken) == result(whole)


KILLED = """
import os, signal, sys
from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.index import build, filling
from fairseq_knn.index.checkpoint import Checkpoint
filling._CHUNK_BYTES, filling._CHECKPOINT_SECONDS = 100 * 4 * 12, 0.0
save, saved = Checkpoint.save, []
def save_and_die(self, index):
    saved.append(save(self, index))
    if len(saved) == 2:
        # In the middle of writing the next one.
        (self.path.parent / f".{self.path.name}.{os.getpid()}.part").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return saved[-1]
Checkpoint.save = save_and_die
build.build_index(Datastore.load(sys.argv[1]), sys.argv[2], device="cpu")
"""


@pytest.mark.usefixtures("small_steps")
def test_killed_build_goes_on(tmp_path: Path) -> None:
    whole, broken = store(tmp_path / "whole"), store(tmp_path / "broken")
    build_index(whole, INVERTED, device="cpu")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(broken.path), INVERTED],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "index.faiss" not in names(broken)
    lines: list[str] = []
    build_index(broken, INVERTED, device="cpu", report=lines.append)
    assert lines[0].startswith("going on with")
    assert ": 0 are in it" not in lines[0]
    assert result(broken) == result(whole)
    assert names(broken) == FINISHED


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datastore = store(tmp_path / "store")
    options = ["build-index", str(datastore.path), "--knn-index", INVERTED, "--knn-device", "cpu"]
    assert main([*options, "--min-recall", "0.999", "--knn-nprobe", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(f"fairseq-knn: error: {INVERTED} finds 0.")
    assert main(options) == 0
    assert "recall@8" in capsys.readouterr().out
    assert names(datastore) == FINISHED


@pytest.mark.parametrize(
    ("option", "value"),
    [("--knn-k", "0"), ("--knn-nprobe", "0"), ("--min-recall", "1.5"), ("--train-size", "0"), ("--seed", "-1")],
)
def test_command_refuses_senseless_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main(["build-index", str(tmp_path), option, value]) == 1
    assert f"{option} is {value}, but must be" in capsys.readouterr().err
