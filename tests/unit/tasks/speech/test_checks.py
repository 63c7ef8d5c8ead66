"""What is wrong with the data of speech translation is said in a sentence, and what is right passes."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fairseq.data.audio.data_cfg import S2TDataConfig

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.speech.checks import audio_file, check_audio, check_manifests, check_settings, check_tags

HEADER = "id\taudio\tn_frames\ttgt_text\tspeaker\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("vocab_filename: dict.txt\n")
    (tmp_path / "dict.txt").write_text("a 1\n")
    (tmp_path / "train.tsv").write_text(f"{HEADER}1\tone.npy\t12\ta b\tx\n\n2\ttwo.npy\t7\t\t\n")
    (tmp_path / "valid.tsv").write_text(f"{HEADER}1\tone.npy\t12\ta b\tx\n")
    return tmp_path


def settings(data: Path, **other: str) -> Namespace:
    return Namespace(**{"data": str(data), "config_yaml": "config.yaml", "train_subset": "train", **other})


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda data: (data / name).write_text(text)


def delete(name: str) -> Callable[[Path], object]:
    return lambda data: (data / name).unlink()


def test_what_is_right_passes(data: Path) -> None:
    check_settings(settings(data))
    check_settings(settings(data, train_subset="train_a,train-b"))
    check_manifests(data, "train,valid")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete("config.yaml"), r"config\.yaml does not exist: name the configuration .* --config-yaml"),
        (write("config.yaml", "a: [1"), r"config\.yaml: .*: correct the file, which is to be YAML"),
        (write("config.yaml", ""), r"config\.yaml holds no settings: write at least"),
        (delete("dict.txt"), r"dict\.txt does not exist: correct vocab_filename of .*config\.yaml"),
        (write("config.yaml", "speaker_set_filename: s.txt\n"), r"s\.txt does not exist: correct speaker_set_filename"),
        (
            write("config.yaml", "prepend_tgt_lang_tag: true\nprepend_bos_and_append_tgt_lang_tag: true\n"),
            "sets both prepend_tgt_lang_tag and prepend_bos_and_append_tgt_lang_tag",
        ),
    ],
)
def test_settings(damage: Callable[[Path], object], message: str, data: Path) -> None:
    damage(data)
    with pytest.raises(ConfigurationError, match=message) as raised:
        check_settings(settings(data))
    assert "\n" not in str(raised.value)


def test_names_of_training_splits(data: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--train-subset names 'dev', but .* begin with train: rename"):
        check_settings(settings(data, train_subset="train,dev"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete("valid.tsv"), r"valid\.tsv does not exist: choose among the splits .* \(train\) with --gen-subset"),
        (write("valid.tsv", ""), r"lacks the columns id, audio, n_frames, tgt_text \(its first line names none\)"),
        (write("valid.tsv", "id\taudio\tn_frames\n"), r"lacks the columns tgt_text \(.* names id, audio, n_frames\)"),
        (write("valid.tsv", f"\ufeff{HEADER}1\ta.npy\t3\tb\tx\n"), r"valid\.tsv begins with a byte order mark"),
        (write("valid.tsv", HEADER), r"valid\.tsv has no sentences: write a line"),
        (write("valid.tsv", f"{HEADER}1\ta.npy\t3\n"), "line 2 of .* has 3 columns instead of 5"),
        (
            write("valid.tsv", f"{HEADER}\n1\ta.npy\tlong\tb\tx\n"),
            "line 3 of .* says 'long' where the number of frames",
        ),
        (
            lambda path: (path / "valid.tsv").write_bytes(f"{HEADER}1\ta.npy\t3\té\tx\n".encode("latin-1")),
            r"valid\.tsv is no UTF-8 text \(.*\): convert it",
        ),
    ],
)
def test_manifests(damage: Callable[[Path], object], message: str, data: Path) -> None:
    damage(data)
    check_manifests(data, "train")
    with pytest.raises(ConfigurationError, match=message):
        check_manifests(data, "train,valid")


class Audio:
    def __init__(self, *paths: str) -> None:
        self.audio_paths = paths

    def __len__(self) -> int:
        return len(self.audio_paths)


def test_audio_files(data: Path) -> None:
    for name in ("one.npy", "two.wav", "all.zip"):
        (data / name).touch()
    there = [f"{data}/one.npy", f"{data}/two.wav", f"{data}/all.zip:0:3", f"{data}/all.zip:3:4"]
    check_audio(Audio(*there), "train.tsv")
    with pytest.raises(
        ConfigurationError, match=r"2 of 6 audio files of train\.tsv do not exist \(the first: .*3\.npy"
    ):
        check_audio(Audio(*there, f"{data}/3.npy", f"{data}/no/one.npy"), "train.tsv")
    with pytest.raises(ConfigurationError, match=r"train\.tsv names the audio file '1\.mp3', which is neither"):
        check_audio(Audio("1.mp3"), "train.tsv")


@pytest.mark.parametrize("path", ["a", "", "a.zip", "a.zip:1", "a.zip:1:b", "a.tar:1:2"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(ConfigurationError, match="the input names the audio file"):
        audio_file(path, "the input")


def test_tags(data: Path) -> None:
    plain, tagged = S2TDataConfig(data / "config.yaml"), SimpleNamespace(prepend_tgt_lang_tag=True)
    check_tags(plain, 0, "--prefix-size")
    check_tags(tagged, 1, "--prefix-size")
    for given in (0, None):
        with pytest.raises(ConfigurationError, match=r"translations begin with the tag .*: pass --prefix-size 1"):
            check_tags(tagged, given, "--prefix-size")
