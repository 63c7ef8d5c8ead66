"""The expert's dictionaries: where they are, and that its target one is the student's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError


def dictionary_paths(config: Any, languages: tuple[str | None, str | None]) -> tuple[str, str]:
    """Files of the dictionaries of the expert's source and target.

    Args:
        config: settings of imitation.
        languages: the expert's, by which its dictionaries are called in ``--expert-data``.

    Raises:
        ConfigurationError: one of them is not named.
    """
    given = (config.expert_vocab_src, config.expert_vocab_tgt)
    source, target = (
        path or _in_data(config.expert_data, language, flag)
        for path, language, flag in zip(given, languages, ("--expert-vocab-src", "--expert-vocab-tgt"), strict=True)
    )
    return source, target


def target_dictionary_path(config: Any) -> str:
    """That of an expert which hears the audio, so has no other.

    Raises:
        ConfigurationError: it is not named.
    """
    named: str | None = config.expert_vocab_tgt or config.expert_data
    if not named:
        raise ConfigurationError(
            "--expert-vocab-tgt is missing: name the dictionary the expert was trained with, which has to be that of "
            "the student"
        )
    return str(Path(named) / "dict.txt") if Path(named).is_dir() else named


def _in_data(data: str | None, language: str | None, flag: str) -> str:
    if not data:
        raise ConfigurationError(
            f"{flag} is missing: name the dictionary the expert was trained with, or with --expert-data the directory "
            "that has its dictionaries"
        )
    if not Path(data).is_dir():
        return data
    if language is None:
        raise ConfigurationError(
            f"the expert's checkpoint does not say its languages, so its dictionary in --expert-data {data} cannot be "
            f"told: name it with {flag}"
        )
    return str(Path(data) / f"dict.{language}.txt")


_EXPERTS = "name the files the expert was trained with by --expert-vocab-src and --expert-vocab-tgt"


def load_dictionary(path: str, remedy: str = _EXPERTS) -> Dictionary:
    """
    Args:
        path: of the file.
        remedy: what to do if it is none, for messages.

    Raises:
        ConfigurationError: there is none.
    """
    if not Path(path).is_file():
        raise ConfigurationError(f"there is no dictionary {path}: {remedy}")
    try:
        return Dictionary.load(path)
    except (ValueError, RuntimeError, UnicodeError) as error:
        raise ConfigurationError(
            f"{path} is no dictionary of fairseq ({' '.join(str(error).split())[:120]}), which has a symbol "
            f"and a count in every line: {remedy}"
        ) from error


def check_same(student: Dictionary, expert: Dictionary) -> None:
    """Student and expert are compared symbol by symbol, for a loss over ids means nothing between others.

    Raises:
        ConfigurationError: they differ.
    """
    if len(student) != len(expert):
        raise ConfigurationError(
            f"the student's dictionary has {len(student):,} symbols, the expert's target dictionary {len(expert):,}, "
            f"but they have to be the same: {_REMEDY}"
        )
    special = ("bos", "pad", "eos", "unk")
    for name in special:
        if getattr(student, name)() != getattr(expert, name)():
            raise ConfigurationError(
                f"{name} is {getattr(student, name)()} in the student's dictionary and {getattr(expert, name)()} in "
                f"the expert's, but they have to be the same: {_REMEDY}"
            )
    differing = first_difference(_symbols(student), _symbols(expert))
    if differing is not None:
        raise ConfigurationError(
            f"the student's dictionary and the expert's target dictionary are not the same: symbol {differing} is "
            f"{student[differing]!r} in the one and {expert[differing]!r} in the other; {_REMEDY}"
        )


def first_difference(one: Sequence[str], other: Sequence[str]) -> int | None:
    """Where two vocabularies of one size differ first."""
    return next((number for number, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)


def _symbols(dictionary: Dictionary) -> list[str]:
    return [dictionary[number] for number in range(len(dictionary))]


_REMEDY = (
    "name the expert's dictionary as vocab_filename in the data's YAML and process the translations as the expert's "
    "were (`fairseq-knn st-data process` and `st-data config` do)"
)
