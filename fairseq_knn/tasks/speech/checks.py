"""What is wrong with the data of speech translation, said in a sentence before stock fairseq stumbles over it."""

import os
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairseq.data.audio.audio_utils import FEATURE_OR_SF_AUDIO_FILE_EXTENSIONS
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.byte_order_mark import refuse_byte_order_mark

_COLUMNS = tuple(
    getattr(SpeechToTextDatasetCreator, f"KEY_{column}") for column in ("ID", "AUDIO", "N_FRAMES", "TGT_TEXT")
)
_TRAIN = "train"  # stock takes the transforms of training for splits whose names begin so


def check_settings(settings: Namespace) -> None:
    """What the stock task reads when it is set up.

    Args:
        settings: of the stock task.

    Raises:
        ConfigurationError: its configuration or its dictionary is missing or not readable, or a split that is trained
            on has no name of one.
    """
    data = Path(settings.data)
    path = data / settings.config_yaml
    if not path.is_file():
        raise ConfigurationError(
            f"{path} does not exist: name the configuration in the data directory with --config-yaml, or correct DATA"
        )
    try:
        config = S2TDataConfig(path)
    except Exception as error:  # what stock makes of all that yaml raises
        raise ConfigurationError(f"{' '.join(str(error).split())}: correct the file, which is to be YAML") from error
    if not isinstance(config.config, dict):
        raise ConfigurationError(f"{path} holds no settings: write at least vocab_filename: dict.txt")
    if config.prepend_tgt_lang_tag and config.prepend_bos_and_append_tgt_lang_tag:
        raise ConfigurationError(
            f"{path} sets both prepend_tgt_lang_tag and prepend_bos_and_append_tgt_lang_tag, which would put the tag "
            "of the language there twice: leave one out"
        )
    for what, name in (
        ("vocab_filename", config.vocab_filename),
        ("speaker_set_filename", config.speaker_set_filename),
    ):
        if name is not None and not (data / name).is_file():
            raise ConfigurationError(f"{data / name} does not exist: correct {what} of {path}, or copy the file there")
    for split in (getattr(settings, "train_subset", None) or _TRAIN).split(","):
        if not split.startswith(_TRAIN):
            raise ConfigurationError(
                f"--train-subset names {split!r}, but fairseq takes the transforms of training for splits whose names "
                f"begin with {_TRAIN}: rename its manifest"
            )


def check_manifests(data: Path, splits: str) -> None:
    """
    Args:
        data: directory of the manifests.
        splits: their names without ``.tsv``, with commas between them.

    Raises:
        ConfigurationError: a manifest is missing, is no text, has no sentences, or lacks something that stock needs.
    """
    for split in splits.split(","):
        path = data / f"{split}.tsv"
        if not path.is_file():
            known = ", ".join(sorted(each.stem for each in data.glob("*.tsv"))) or "none"
            raise ConfigurationError(
                f"{path} does not exist: choose among the splits that DATA has a manifest of ({known}) with "
                "--gen-subset, --train-subset and --valid-subset"
            )
        try:
            with path.open(encoding="utf-8") as lines:
                _check_lines(path, lines)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is no UTF-8 text ({error.reason}): convert it") from error


def _check_lines(path: Path, lines: Iterable[str]) -> None:
    rows = (line.rstrip("\r\n").split("\t") for line in lines)
    columns = next(rows, [])
    refuse_byte_order_mark(path, "".join(columns))
    if missing := [column for column in _COLUMNS if column not in columns]:
        raise ConfigurationError(
            f"{path} lacks the columns {', '.join(missing)} (its first line names {', '.join(columns) or 'none'}): a "
            "manifest has tabs between its columns and their names in the first line"
        )
    places = [columns.index(column) for column in _COLUMNS]
    frames, empty = columns.index(SpeechToTextDatasetCreator.KEY_N_FRAMES), True
    for number, fields in enumerate(rows, 2):
        if fields == [""]:
            continue
        empty = False
        if len(fields) <= max(places):
            raise ConfigurationError(
                f"line {number} of {path} has {len(fields)} columns instead of {len(columns)}: write the line again"
            )
        if not fields[frames].strip().isdecimal():
            raise ConfigurationError(
                f"line {number} of {path} says {fields[frames]!r} where the number of frames is expected: correct "
                "n_frames"
            )
    if empty:
        raise ConfigurationError(f"{path} has no sentences: write a line for each below the names of the columns")


def check_audio(dataset: Any, manifest: str) -> None:
    """
    Args:
        dataset: a SpeechToTextDataset.
        manifest: where its paths stand.

    Raises:
        ConfigurationError: a file is missing, or of a kind that stock does not read.
    """
    folders: dict[str, set[str]] = {}  # looking into a directory once is faster than asking for each of its files
    missing = []
    for path in dataset.audio_paths:
        folder, name = os.path.split(audio_file(path, manifest))
        if folder not in folders:
            folders[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        if name not in folders[folder]:
            missing.append(path)
    if missing:
        raise ConfigurationError(
            f"{len(missing):,} of {len(dataset):,} audio files of {manifest} do not exist (the first: {missing[0]}): "
            "correct its column audio, or audio_root in the configuration"
        )


def audio_file(path: str, place: str) -> str:
    """The file that an audio path names: itself, or the ZIP archive it is in.

    Args:
        path: of audio or features (``PATH.wav``, ``PATH.npy``, ``PATH.zip:OFFSET:LENGTH``, ...).
        place: where it stands, for the message.

    Raises:
        ConfigurationError: it is none of these.
    """
    if Path(path).suffix in FEATURE_OR_SF_AUDIO_FILE_EXTENSIONS:
        return path
    file, *slices = path.split(":")
    if not file.endswith(".zip") or len(slices) != 2 or not all(number.isdecimal() for number in slices):
        kinds = ", ".join(sorted(FEATURE_OR_SF_AUDIO_FILE_EXTENSIONS))
        raise ConfigurationError(
            f"{place} names the audio file {path!r}, which is neither one of {kinds} nor a part of an archive "
            "(PATH.zip:OFFSET:LENGTH): convert the file"
        )
    return file


def check_tags(config: S2TDataConfig, given: int | None, flag: str) -> None:
    """
    Args:
        config: of the data.
        given: how many tokens at the beginning are left to the reference.
        flag: that says so.

    Raises:
        ConfigurationError: the tag of the language stands there, and it is not one.
    """
    if config.prepend_tgt_lang_tag and given != 1:
        raise ConfigurationError(
            f"translations begin with the tag of their language (prepend_tgt_lang_tag in the configuration), which is "
            f"given and not predicted: pass {flag} 1"
        )
