"""The directory with the text of a recipe: whole or absent, with a record of what it was made from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq_knn.corpora.wheel import sha256_of
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import explain_os_errors, read_json, sync_directory, write_json

_RECORD = "pairs.json"
# Goes up when the same file and settings would give other text.
_FORM = 1


def finished(text: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The record of text that is there, or None if there is none.

    Args:
        text: the directory.
        asked: what the text depends on.

    Raises:
        ConfigurationError: it is other text, or was changed.
    """
    if not text.exists():
        return None
    remedy = f"choose another pairs.directory, or delete {text}"
    try:
        record = read_json(text / _RECORD)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(f"{text} is not what a recipe has made (it has no {_RECORD}): {remedy}") from error
    if not isinstance(record, dict) or record.get("form") != _FORM:
        raise ConfigurationError(f"{text} was made by another version of fairseq_knn: {remedy}")
    for name, value in asked.items():
        if record.get(name) != value:
            what = "the checksum of its file" if name == "sha256" else f"pairs.{name}"
            raise ConfigurationError(
                f"{text} holds other text, for which {what} was {record.get(name)} and is now {value}: {remedy}"
            )
    for name, digest in record["files"].items():
        if not (text / name).is_file() or sha256_of(text / name) != digest:
            raise ConfigurationError(f"{text / name} is not as {_RECORD} describes it: delete {text} and try again")
    return record


def make(text: Path, asked: dict[str, Any], write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Make the directory; an interrupted run leaves none of this name.

    Args:
        text: the directory.
        asked: what the text depends on.
        write: writes the files into an empty directory, to the disk; returns the rest of the record, with the checksums
            of all that is to stay there under ``files``.

    Returns:
        The record.
    """
    staging = text.with_name(f".{text.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    with explain_os_errors(text):
        staging.mkdir()
        try:
            record = {**asked, "form": _FORM, **write(staging)}
            write_json(staging / _RECORD, record)
            staging.rename(text)
            sync_directory(text.parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return record
