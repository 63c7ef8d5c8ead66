"""What a user can cause ends in one sentence that says what to do, and nothing is lost by it."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import ARRAYS, array_path
from fairseq_knn.errors import UserError
from tests import cli, toy
from tests.integration.moments import Moments, fill
from tests.support import write_datastore

SHARDS = ("--knn-shard-sentences", 20)


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """The block ends in a user error of one line that contains all these parts."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture
def copy(small_datastore: Path, tmp_path: Path) -> Path:
    """A datastore to damage."""
    return Path(shutil.copytree(small_datastore, tmp_path / "copy"))


def assert_one_sentence(run: cli.Run, *parts: str) -> None:
    assert run.status == 1, run.log
    assert "Traceback" not in run.log + run.output
    assert len(run.errors) == 1
    assert run.log.rstrip().splitlines()[-1] == run.errors[0]
    for part in parts:
        assert part in run.errors[0]


# Programs in processes of their own: one sentence on standard error, exit status 1, no traceback.


def test_generate_without_a_datastore() -> None:
    run = cli.run("fairseq-generate", *toy.base_arguments(), "--user-dir", cli.PACKAGE, "--cpu")
    assert_one_sentence(run, "--knn-datastore-path", "--task translation")


def test_interactive_with_a_datastore_of_another_model(small_datastore: Path, other_model: Path) -> None:
    run = cli.run(
        "fairseq-interactive",
        *(*toy.base_arguments(model=other_model), "--user-dir", cli.PACKAGE, "--cpu"),
        *("--knn-datastore-path", small_datastore),
        stdin="w1 w2\n",
    )
    assert_one_sentence(run, str(small_datastore), "built by another model", "--knn-allow-mismatch")


def test_full_disk_then_space_again(small_datastore: Path, tmp_path: Path) -> None:
    path = tmp_path / "d"
    run = cli.run(
        *("python", "-m", "tests.integration.moments", path, "--fill", "write .keys-00004.npy #5"),
        *("fairseq-generate", *toy.build_arguments(path, *SHARDS), "--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert_one_sentence(run, "no space left", "free some space", "run the same command again")
    resumed = toy.build(path, *SHARDS)
    assert "4 are there already" in resumed.log
    assert toy.content(path) == toy.content(small_datastore)


# The rest inside this process.


@pytest.mark.parametrize(
    "moment",
    [
        *("mkdir shards", "write .plan.json", "open .keys-00002.spool", "write .keys-00002.spool"),
        *(
            "write .values-00003.npy #9",
            "replace positions-00003.npy",
            "write .log_probs-00003.npy #2",
            "write .commit-00003.json",
        ),
        "write .manifest.json",
    ],
)
def test_disk_full_at_any_moment(moment: str, small_datastore: Path, tmp_path: Path) -> None:
    path = tmp_path / "d"
    with refused("no space left"), Moments(path, moment, fill) as moments:
        toy.build(path, *SHARDS)
    assert moment in moments.names
    with refused("no datastore" if "plan" in moment or "mkdir" in moment else "unfinished"):
        Datastore.load(path)
    toy.build(path, *SHARDS)
    assert toy.content(path) == toy.content(small_datastore)


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("moment", ["mkdir d", "write .plan.json", "open .keys-00000.spool"])
def test_places_that_cannot_be_written(reason: int, moment: str, tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError(reason, os.strerror(reason))

    says = ("cannot be written", os.strerror(reason), "choose a place you may write to")
    with refused(*says), Moments(tmp_path / "d", moment, refuse):
        toy.build(tmp_path / "d")


def test_a_file_is_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with refused(str(path), "a file is where a directory is needed", "choose another path"):
            toy.build(path)
        with refused("no datastore", str(path), "--knn-mode build_datastore"):
            toy.translate(path)
    assert (tmp_path / "file").read_text() == "precious"


def test_no_datastore_there(tmp_path: Path) -> None:
    with refused("no datastore", str(tmp_path / "nowhere"), "--knn-mode build_datastore", "--knn-datastore-path"):
        toy.translate(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_unfinished_datastore(tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, "--distributed-world-size", 2, "--distributed-rank", 0)
    before = toy.content(tmp_path)
    with refused(str(tmp_path), "unfinished", "fairseq-knn merge"):
        toy.translate(tmp_path)
    assert toy.content(tmp_path) == before


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "documents"])  # those are of language models
def test_truncated_and_missing_files(name: str, copy: Path) -> None:
    file = array_path(copy, name, 3)
    size = file.stat().st_size
    os.truncate(file, size - 1)
    with refused("damaged", file.name, f"{size - 1:,} bytes instead of {size:,}", "--knn-overwrite"):
        toy.translate(copy)
    file.unlink()
    with refused("damaged", file.name, "is missing", "--knn-overwrite"):
        toy.translate(copy)


@pytest.mark.parametrize("name", ["keys", "values"])
def test_wrong_checksums(name: str, copy: Path) -> None:
    file = array_path(copy, name, 3)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with refused("damaged", file.name, "checksum", "--knn-overwrite"):
        toy.translate(copy)


def test_another_model(small_datastore: Path, other_model: Path) -> None:
    with refused(str(small_datastore), "another model", "--knn-allow-mismatch"):
        toy.translate(small_datastore, model=other_model)
    insisted = toy.translate(small_datastore, "--knn-allow-mismatch", "--score-reference", model=other_model)
    assert len(insisted.lines("H")) == toy.TEST_SENTENCES


def test_another_dictionary(small_datastore: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy.DOMAIN, data)
    lines = (data / "dict.en.txt").read_text().splitlines(keepends=True)
    (data / "dict.en.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    with refused(str(small_datastore), "another target dictionary", "build it again"):
        toy.translate(small_datastore, data=data)
    insisted = toy.translate(small_datastore, "--knn-allow-mismatch", "--score-reference", data=data)
    assert len(insisted.lines("H")) == toy.TEST_SENTENCES


def test_a_dictionary_too_large_cannot_be_insisted_on(tmp_path: Path) -> None:
    keys = np.zeros((9, 64), np.float16)
    write_datastore(tmp_path, keys, np.arange(991, 1000), vocabulary_size=1000)
    with refused("another target dictionary (1,000 symbols"):
        toy.translate(tmp_path, "--knn-allow-mismatch")


def test_another_kind_of_keys(small_datastore: Path, tmp_path: Path) -> None:
    with refused("decoder_output", "asks for ffn_input", "leave out --knn-key"):
        toy.translate(small_datastore, "--knn-key", "ffn_input")
    toy.build(tmp_path, "--knn-key", "ffn_input")
    with refused("different kinds", f"{small_datastore}: decoder_output", f"{tmp_path}: ffn_input"):
        toy.translate(f"{small_datastore}:{tmp_path}")


def test_another_dimension(tmp_path: Path) -> None:
    write_datastore(tmp_path, np.eye(32), np.arange(32) + 4, vocabulary_size=100)
    with refused("hidden states have dimension 64", "dimension 32", str(tmp_path)):
        toy.translate(tmp_path, "--knn-allow-mismatch")


@pytest.mark.parametrize(
    ("flag", "value", "parts"),
    [
        ("--knn-k", 0, ("--knn-k is 0", "at least 1")),
        ("--knn-k", -3, ("--knn-k is -3", "at least 1")),
        ("--knn-k", 10**6, ("k is 1000000", "choose k between 1 and 1,5")),
        ("--knn-nprobe", 0, ("--knn-nprobe is 0", "at least 1")),
        ("--knn-lambda", -0.1, ("lambda is -0.1", "between 0", "and 1")),
        ("--knn-lambda", 1.1, ("lambda is 1.1", "between 0", "and 1")),
        ("--knn-lambda", "nan", ("lambda is nan", "between 0", "and 1")),
        ("--knn-temperature", 0, ("temperature is 0", "above 0")),
        ("--knn-temperature", -1, ("temperature is -1", "above 0")),
        ("--knn-temperature", "inf", ("temperature is inf", "above 0")),
    ],
)
def test_numbers_out_of_range(flag: str, value: object, parts: tuple[str, ...], small_datastore: Path) -> None:
    with refused(*parts):
        toy.translate(small_datastore, f"{flag}={value}")


def test_shards_of_no_sentence(tmp_path: Path) -> None:
    with refused("--knn-shard-sentences is 0", "at least 1"):
        toy.build(tmp_path / "d", "--knn-shard-sentences", 0)
    assert not (tmp_path / "d").exists()


def test_an_empty_corpus(small_datastore: Path, tmp_path: Path) -> None:
    toy.write_split(tmp_path / "data", "test", [], [])
    with refused("'test' has no sentences", "--gen-subset"):
        toy.build(tmp_path / "d", split="test", data=tmp_path / "data")
    assert not (tmp_path / "d").exists()
    with refused("'test' has no sentences", "--gen-subset"):
        toy.translate(small_datastore, data=tmp_path / "data")


def test_a_split_that_does_not_exist(small_datastore: Path) -> None:
    with refused("nonsense", "--gen-subset"):
        toy.translate(small_datastore, split="nonsense")


def test_a_corpus_without_references(tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy.DOMAIN, tmp_path / "data"))
    for file in data.glob("test.de-en.en.*"):
        file.unlink()
    with refused("'test' has no reference translations", "choose a split"):
        toy.build(tmp_path / "d", split="test", data=data)


def test_building_without_references_being_scored(copy: Path) -> None:
    """Not even a datastore that may be overwritten is touched."""
    arguments = [*toy.build_arguments(copy, "--knn-overwrite")]
    arguments.remove("--score-reference")
    before = toy.content(copy)
    with refused("reference translations", "fairseq-generate with --score-reference"):
        cli.generate(*arguments)
    assert toy.content(copy) == before


def test_building_with_another_program(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("w1 w2\n")
    with refused("fairseq-generate with --score-reference"):
        cli.call(
            "fairseq-interactive",
            *(*toy.base_arguments(), "--user-dir", cli.PACKAGE, "--cpu", "--score-reference"),
            *("--input", tmp_path / "input", "--knn-mode", "build_datastore", "--knn-datastore-path", tmp_path / "d"),
        )
    assert not (tmp_path / "d").exists()


def test_building_with_an_ensemble(tmp_path: Path, other_model: Path) -> None:
    with refused("a datastore belongs to one model, but --path names 2", "build one datastore with each"):
        cli.generate(*toy.build_arguments(tmp_path / "d"), "--path", f"{toy.BASE}:{other_model}")
    assert not (tmp_path / "d").exists()


def test_a_gpu_where_there_is_none(small_datastore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused("--knn-device cuda", "pass --knn-device cpu"):
        toy.translate(small_datastore, "--knn-device", "cuda")
