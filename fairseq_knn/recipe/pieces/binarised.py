"""From text to what stock fairseq trains on: the files of its own binariser, and dictionaries."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairseq.binarizer import BinarizeSummary, FileBinarizer, VocabularyDatasetBinarizer

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.piece_dictionary import Pieces, piece_dictionary, save_dictionary
from fairseq_knn.recipe.pieces.plain_text import examined
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer
from fairseq_knn.storage.atomic import (
    directory_lock,
    explain_os_errors,
    make_directory,
    read_json,
    sync_directory,
    write_json,
)

_RECORD = "binarised.json"
_FORM = 1
# More unknown tokens than this, in percent, are worth a warning.
_MANY_UNKNOWN = 0.1
# What is not worth a process of its own, in bytes.
_SMALL = 1 << 20


def binarise(
    splits: Mapping[str, tuple[Path, Path]],
    languages: tuple[str, str],
    tokenizer: PieceTokenizer,
    directory: Path,
    workers: int,
    say: Callable[[str], object],
) -> Path:
    """Make what ``fairseq-preprocess`` would make of tokenized text, in ``DIRECTORY/NAME``, NAME being the tokenizer's.

    Both languages have the same dictionary. Its lines are the tokenizer's pieces in their order, or what there is in
    the first split if only text can tell, the most frequent first; in memory it has four symbols more (beginning,
    padding, end, unknown). A sentencepiece model of 5,000 pieces, three of which are such symbols, makes 5,001.

    What is there is reused if it was made of the same text by the same tokenizer, and made anew otherwise. An
    interrupted run leaves nothing that is taken for data.

    Args:
        splits: the files of source and target of each, train first.
        languages: of source and target.
        tokenizer: cuts the text.
        directory: in which the data's own directory is made.
        workers: processes; they do not change what is written.
        say: called with lines about what is made, and how many tokens of it are unknown.

    Returns:
        The directory of the data.

    Raises:
        ConfigurationError: a file cannot be read, is empty, is not UTF-8, or has more lines than its translation.
        UserError: the place cannot be written.
    """
    data = directory / tokenizer.name
    make_directory(directory)
    with directory_lock(directory), explain_os_errors(data):
        asked: dict[str, Any] = {
            "form": _FORM,
            "languages": list(languages),
            "tokenizer": tokenizer.digest(),
            "texts": {name: [examined(path) for path in paths] for name, paths in splits.items()},
        }
        for name, ((_, source), (_, target)) in asked["texts"].items():
            if source != target:
                raise ConfigurationError(
                    f"{name} has {source:,} lines in {splits[name][0]}, but {target:,} in {splits[name][1]}: they have "
                    "to be translations of each other, line by line"
                )
        if _is_finished(data, asked):
            say(f"{data} is there already, of this text: reused")
            return data
        staging = data.with_name(f".{data.name}.part")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            unknown = _write(splits, languages, tokenizer, staging, workers, say)
            files = {path.name: path.stat().st_size for path in sorted(staging.iterdir())}
            write_json(staging / _RECORD, {**asked, "unknown": unknown, "files": files})
            shutil.rmtree(data, ignore_errors=True)
            staging.rename(data)
            sync_directory(directory)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return data


def _is_finished(data: Path, asked: Mapping[str, Any]) -> bool:
    try:
        record = read_json(data / _RECORD)
    except (FileNotFoundError, NotADirectoryError):
        if data.exists():
            raise ConfigurationError(
                f"{data} is not what a recipe has made (it has no {_RECORD}): delete it, or choose another "
                "pairs.directory"
            ) from None
        return False
    expected = {**asked, "texts": {name: [list(text) for text in texts] for name, texts in asked["texts"].items()}}
    return all(record.get(name) == value for name, value in expected.items()) and all(
        (data / name).is_file() and (data / name).stat().st_size == size for name, size in record["files"].items()
    )


def _write(
    splits: Mapping[str, tuple[Path, Path]],
    languages: tuple[str, str],
    tokenizer: PieceTokenizer,
    staging: Path,
    workers: int,
    say: Callable[[str], object],
) -> dict[str, int]:
    """Write the data into *staging*; how many tokens of each file are unknown."""
    dictionary = piece_dictionary(tokenizer, next(iter(splits.values())))
    for language in languages:
        save_dictionary(dictionary, staging / f"dict.{language}.txt")
    say(f"{len(dictionary):,} symbols in the dictionary of both languages")
    unknown = {}
    for name, paths in splits.items():
        for language, path in zip(languages, paths, strict=True):
            prefix = f"{name}.{'-'.join(languages)}.{language}"
            summary: BinarizeSummary = FileBinarizer.multiprocess_dataset(
                str(path),
                "mmap",
                VocabularyDatasetBinarizer(dictionary, tokenize=Pieces(tokenizer)),
                str(staging / prefix),
                vocab_size=len(dictionary),
                num_workers=_processes(workers, path),
            )
            unknown[prefix] = summary.num_replaced
            percent = summary.replaced_percent
            warning = "; WARNING: the model cannot tell these apart" if percent > _MANY_UNKNOWN else ""
            say(
                f"{prefix}: {summary.num_seq:,} sentences, {summary.num_tok:,} tokens, "
                f"{summary.num_replaced:,} of them ({percent:.2f} %) unknown{warning}"
            )
    return unknown


def _processes(workers: int, path: Path) -> int:
    return max(1, min(workers, path.stat().st_size // _SMALL))
