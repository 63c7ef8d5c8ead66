"""Manifests as tables of text."""

from collections.abc import Sequence
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.byte_order_mark import refuse_byte_order_mark

_SHOWN = 5

Columns = dict[str, list[str]]


def read_columns(path: Path, needed: Sequence[str]) -> Columns:
    """The columns of a manifest by name: fields have tabs between them and no quotes; empty lines do not count.

    Args:
        path: of the file.
        needed: columns that have to be there.

    Raises:
        ConfigurationError: it cannot be read, has no lines, lacks a column, has a line with other columns, or an id
            twice.
    """
    rows, header = [], None
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\n").split("\t")
                if fields == [""]:
                    continue
                if header is None:
                    refuse_byte_order_mark(path, line)
                    header = fields
                elif len(fields) != len(header):
                    raise ConfigurationError(
                        f"line {number} of {path} has {len(fields)} columns, but the first line names {len(header)}: "
                        "correct it (columns are separated by tabs, which texts may not have in them)"
                    )
                else:
                    rows.append(fields)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}): name the directory with the manifests, and as subset (--train-"
            "subset, --valid-subset, --gen-subset) one of them without .tsv"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no UTF-8 text ({error.reason}): convert it") from error
    if not rows:
        raise ConfigurationError(f"{path} has no lines but the names of its columns: use another manifest")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(header or [])}
    require(columns, needed, path)
    _check_ids(columns.get("id", []), path)
    return columns


def _check_ids(ids: Sequence[str], path: Path) -> None:
    """
    Raises:
        ConfigurationError: one comes twice.
    """
    seen: set[str] = set()
    for each in ids:
        if each in seen:
            raise ConfigurationError(f"{path} has the id {each} twice: give every line its own")
        seen.add(each)


def require(columns: Columns, needed: Sequence[str], path: Path) -> None:
    """
    Raises:
        ConfigurationError: columns are missing.
    """
    for column in needed:
        if column not in columns:
            raise ConfigurationError(
                f"{path} has no column {column} (its first line names {', '.join(columns)}): add it (`fairseq-knn "
                "st-data` does)"
            )


def check_filled(columns: Columns, column: str, manifest: str, purpose: str) -> None:
    """
    Args:
        columns: of the manifest, with ``id`` among them.
        column: that may not be blank anywhere.
        manifest: its name, for messages.
        purpose: of the column, for messages.

    Raises:
        ConfigurationError: it is.
    """
    blank = [number for number, text in enumerate(columns[column]) if not text.strip()]
    if blank:
        raise ConfigurationError(
            f"column {column} of {manifest} is blank in {len(blank):,} of {len(columns[column]):,} lines (ids "
            f"{shown(columns['id'], blank)}), but {purpose}: fill it in or leave these lines out"
        )


def shown(ids: Sequence[str], numbers: Sequence[int]) -> str:
    """Some ids, for messages."""
    return ", ".join(ids[number] for number in numbers[:_SHOWN]) + (", ..." if len(numbers) > _SHOWN else "")
