"""`fairseq-knn inspect` and `verify` on whole and on broken datastores of the toy domain."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.cli.main import main
from fairseq_knn.datastore.layout import array_path
from tests import cli, toy
from tests.damage import flip, rewrite

DICTIONARY = toy.DOMAIN / "dict.en.txt"
KNNBOX = toy.TOY / "knnbox_datastore"


@pytest.fixture(scope="module")
def indexed(small_datastore: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(shutil.copytree(small_datastore, tmp_path_factory.mktemp("indexed") / "store"))
    assert main(["build-index", str(path)]) == 0
    return path


@pytest.fixture
def copy(indexed: Path, tmp_path: Path) -> Path:
    """A datastore with an index, to damage."""
    return Path(shutil.copytree(indexed, tmp_path / "copy"))


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """What the second of three ranks builds."""
    ranks = ("--distributed-world-size", 3, "--distributed-rank", 1)
    assert toy.build(tmp_path, "--knn-shard-sentences", 20, *ranks).status == 0
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_whole(indexed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, log = call(capsys, "verify", indexed, "--vocabulary", DICTIONARY)
    assert status == 0
    assert output.splitlines()[-1].startswith("whole: 1,5")
    assert f"in {toy.VALID_SENTENCES} sentences (0 left out), 11 shards" in output
    assert "note: stored keys find themselves in index.faiss (Flat, recall@8 1.000 when built)" in output
    assert "problem" not in output
    assert "reading: 100%" in log


def test_broken(copy: Path) -> None:
    """In a process of its own: all problems, each in a line, and status 1."""
    flip(array_path(copy, "values", 1), -8)
    array_path(copy, "positions", 2).unlink()
    rewrite(copy, "keys", 3, lambda keys: np.where(np.arange(len(keys))[:, None] == 5, np.nan, keys))
    rewrite(copy, "values", 4, lambda values: np.full_like(values, 168))
    run = cli.run("fairseq-knn", "verify", copy)
    assert run.status == 1
    assert "Traceback" not in run.log
    problems = [line for line in run.output.splitlines() if line.startswith("problem: ")]
    for name, told in (
        ("values-00001", "its checksum is"),
        ("positions-00002", "it is missing"),
        ("keys-00003", "1 is NaN or infinite (in row 5)"),
        ("values-00004", "are none of the 168 ids of the vocabulary"),
        ("", "is older than its datastore"),
    ):
        assert any(name in problem and told in problem for problem in problems), name
    assert len(problems) == 5
    assert run.output.splitlines()[-1].startswith(f"{copy} has 5 problems; checked: ")


def test_damaged_index(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(copy / "index.faiss", 5000)
    status, output, _ = call(capsys, "verify", copy)
    assert (status, output.count("problem: ")) == (1, 1)
    assert "index.faiss is damaged" in output
    os.truncate(copy / "index.faiss", 100)
    assert call(capsys, "inspect", copy)[0] == 0  # the datastore itself is fine


def test_told_remedy_mends_the_datastore(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = toy.content(copy)
    flip(array_path(copy, "keys", 3))
    _, output, _ = call(capsys, "verify", copy)
    assert "delete manifest.json and shards/commit-00003.json and run the command that built the datastore" in output
    (copy / "manifest.json").unlink()
    (copy / "shards" / "commit-00003.json").unlink()
    assert "10 are there already" in toy.build(copy, "--knn-shard-sentences", 20).log
    assert toy.content(copy) == before
    assert call(capsys, "verify", copy)[0] == 0


def test_another_dictionary(indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "dict.txt"
    other.write_text("w1 5\nw2 4\n")
    status, output, _ = call(capsys, "verify", indexed, "--vocabulary", other)
    assert (status, output.count("problem: ")) == (1, 1)
    assert f"than {other} (6 symbols" in output
    for text in (b"no counts\n", b"\xff 1\n"):
        other.write_bytes(text)
        status, _, log = call(capsys, "verify", indexed, "--vocabulary", other)
        assert status == 1
        assert "cannot be read as a dictionary of fairseq" in log.splitlines()[-1]


def test_unfinished(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = call(capsys, "inspect", unfinished)
    assert status == 0
    assert "fairseq_knn 1, unfinished" in output
    assert "has 4 of 11 shards; missing: 0, 2-3, 5-6, 8-9; run the command" in output
    assert "4 of 11, of up to 20 sentences" in output
    status, output, _ = call(capsys, "verify", unfinished)
    assert (status, output.count("problem: ")) == (1, 1)
    assert "missing: 0, 2-3, 5-6, 8-9" in output


def test_inspect(indexed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = call(capsys, "inspect", indexed, "--json")
    known = json.loads(output)
    assert status == 0
    assert (known["sentences"], known["shards"], known["plan"]["split"]) == (toy.VALID_SENTENCES, 11, "valid")
    assert known["index"]["recall"] == 1.0
    status, output, _ = call(capsys, "inspect", indexed)
    assert status == 0
    for line in (
        f"entries     {known['entries']:,} of dimension 64",
        f"sentences   {toy.VALID_SENTENCES} from the split 'valid', 0 left out",
        f"model       TransformerModel {known['plan']['model'][:12]}",
        "vocabulary  168 symbols, ",
        "index       Flat",
        "            recall@8 1.000",
    ):
        assert f"\n{line}" in output
    assert all(line[11] == " " != line[12] for line in output.splitlines())  # aligned


def test_inspect_reads_no_array(
    indexed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "load", pytest.fail)
    monkeypatch.setattr(np, "memmap", pytest.fail)
    for path in (indexed, KNNBOX):
        assert call(capsys, "inspect", path)[0] == 0


def test_inspect_with_an_index_that_cannot_be_used(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, told in (("index.faiss", "index.faiss is missing: restore it"), ("index.json", "has no search index")):
        (copy / file).unlink()
        status, output, _ = call(capsys, "inspect", copy)
        assert status == 0
        assert told in next(line for line in output.splitlines() if line.startswith("index "))


def test_dropped_keys(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build-index", str(copy), "--drop-keys"]) == 0
    status, output, _ = call(capsys, "verify", copy)
    assert status == 0
    assert "note: keys were dropped on purpose" in output
    status, output, _ = call(capsys, "inspect", copy)
    assert "decoder_output, float16, dropped" in output
    assert "exact search" not in output


def test_knnbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = call(capsys, "inspect", KNNBOX)
    assert status == 0
    assert "\nindex       IVF64,PQ16\n" in output
    status, output, _ = call(capsys, "verify", KNNBOX, "--vocabulary", DICTIONARY)
    assert (status, output.count("problem")) == (0, 0)
    assert "whole: 15,997 entries without checksums" in output

    broken = Path(shutil.copytree(KNNBOX, tmp_path / "broken"))
    values = np.fromfile(broken / "vals.npy", np.int64)
    values[7] = 168
    values.tofile(broken / "vals.npy")
    np.roll(np.fromfile(broken / "keys.npy", np.float16).reshape(-1, 64), 100, axis=0).tofile(broken / "keys.npy")
    status, output, _ = call(capsys, "verify", broken, "--vocabulary", DICTIONARY)
    assert status == 1
    assert "vals.npy: of 15,997 values 1 is none of the 168 ids of the vocabulary (in row 7)" in output
    status, output, _ = call(capsys, "verify", broken)
    assert (status, output.count("problem: ")) == (1, 1)
    assert "of 32 stored keys looked up in" in output


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_nothing_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, log = call(capsys, command, tmp_path / "nowhere")
    assert (status, output) == (1, "")
    assert log.startswith("fairseq-knn: error: there is no datastore in")
    assert len(log.splitlines()) == 1


def test_inspect_a_damaged_one(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array_path(copy, "keys", 3).unlink()
    status, output, log = call(capsys, "inspect", copy)
    assert (status, output) == (1, "")
    assert "keys-00003.npy is missing" in log
