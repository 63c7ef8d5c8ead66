"""Texts of a manifest as plain files for any other program, and what it made of them back in a manifest."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.joining import Join, join
from fairseq_knn.speech_data.manifest import ID, TEXTS, Manifest, check_output, with_column, write_manifest
from fairseq_knn.speech_data.marks import unmarked
from fairseq_knn.storage.atomic import atomic_path


@dataclass(frozen=True)
class Extracted:
    """The files that were written, and how many of their lines are blank."""

    rows: int
    blank: dict[Path, int]


@dataclass(frozen=True)
class Inserted:
    """What was read and written; ``blank``: how many rows have an empty text, by column."""

    ids: Join
    written: int
    blank: dict[str, int]


def extract(manifest: Path, prefix: Path, columns: Sequence[str] = TEXTS) -> Extracted:
    """Write ``PREFIX.ids`` and for each column ``PREFIX.<column>``, a line for every row and in their order.

    Raises:
        ConfigurationError: the manifest lacks a column.
    """
    opened = Manifest(manifest, *columns)
    paths = [prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("ids", *columns)]
    blank = dict.fromkeys(paths, 0)
    rows = 0
    with contextlib.ExitStack() as stack:
        files = []
        for path in paths:
            check_output(path, (manifest,))
            temporary = stack.enter_context(atomic_path(path))
            files.append(stack.enter_context(temporary.open("w", encoding="utf-8", newline="\n")))
        for row in opened.rows():
            rows += 1
            for column, path, file in zip((ID, *columns), paths, files, strict=True):
                file.write(row[column] + "\n")
                blank[path] += not row[column].strip()
    return Extracted(rows, blank)


def insert(
    manifest: Path, ids: Path, texts: Mapping[str, Path], output: Path, *, allow_missing: bool = False
) -> Inserted:
    """Write a manifest whose texts are those of plain files; its rows are found by their ids.

    Args:
        ids: a file with an id a line.
        texts: by column, files with as many lines, in the same order. A column that the manifest lacks is added.
        allow_missing: leave out rows that the files lack, and lines whose id the manifest lacks.

    Raises:
        ConfigurationError: the files have different numbers of lines, or do not cover the manifest.
    """
    opened = Manifest(manifest)
    numbers: dict[str, int] = {}
    for number, line in enumerate(_lines(ids)):
        if numbers.setdefault(line, number) != number:
            raise ConfigurationError(f"{ids} has the id {line} twice: extract the texts again")
    lines = {column: list(_lines(path)) for column, path in texts.items()}
    for column, path in texts.items():
        if len(lines[column]) != len(numbers):
            raise ConfigurationError(
                f"{path} has {len(lines[column]):,} lines, but {ids} {len(numbers):,}: what processes the texts must "
                "neither drop, split nor join lines"
            )
    known = [row[ID] for row in opened.rows()]
    joined = join(manifest, known, ids, numbers, allow_missing=allow_missing)
    blank = dict.fromkeys(texts, 0)

    def inserted() -> Iterator[dict[str, str]]:
        for row in opened.rows():
            number = numbers.get(row[ID])
            if number is not None:
                new = {column: lines[column][number] for column in texts}
                for column in texts:
                    blank[column] += not new[column].strip()
                yield unmarked(row, texts) | new

    columns = with_column(opened.columns, *texts)
    written = write_manifest(output, columns, inserted(), (manifest, ids, *texts.values()))
    return Inserted(joined, written, blank)


def _lines(path: Path) -> Iterator[str]:
    try:
        # Only at "\n": other characters that Python ends lines at are part of the text.
        with path.open(encoding="utf-8", newline="\n") as file:
            yield from (line.removesuffix("\n").removesuffix("\r") for line in file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a file that you may read") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no UTF-8 text ({error.reason}): write it as UTF-8") from error
