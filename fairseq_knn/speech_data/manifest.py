"""Manifests of stock fairseq's ``speech_to_text``: a tab-separated file, an utterance a line, with named columns.

Read as stock reads them: there are no quotes and nothing is escaped, so a field holds neither tab nor end of line.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import atomic_path
from fairseq_knn.storage.byte_order_mark import refuse_byte_order_mark

ID, AUDIO, FRAMES = "id", "audio", "n_frames"
SOURCE_TEXT, TARGET_TEXT = "src_text", "tgt_text"
TEXTS = (SOURCE_TEXT, TARGET_TEXT)

Row = dict[str, str]


class Manifest:
    """A manifest on disk, read row by row.

    Attributes:
        columns: their names, in the file's order, which is nobody's business but the file's.

    Raises:
        ConfigurationError: there is no file, it is no manifest, or it lacks a column that is needed.
    """

    def __init__(self, path: Path, *needed: str) -> None:
        self.path = path
        self.columns = self._header()
        for column in (ID, *needed):
            if column not in self.columns:
                raise ConfigurationError(
                    f"{path} has no column {column}, only {', '.join(self.columns)}: name a manifest of fairseq's "
                    "speech_to_text that has it"
                )

    def rows(self) -> Iterator[Row]:
        """Every utterance, its fields by the names of their columns.

        Raises:
            ConfigurationError: a row has too many fields or too few, two have one id, or there is none.
        """
        seen = set()
        records = self._records()
        next(records)
        for line, record in records:
            if len(record) != len(self.columns):
                raise ConfigurationError(
                    f"line {line} of {self.path} has {len(record)} fields, but its header {len(self.columns)}: mend "
                    "the line; no field may hold a tab or an end of line"
                )
            row = dict(zip(self.columns, record, strict=True))
            if row[ID] in seen:
                raise ConfigurationError(
                    f"{self.path} has the id {row[ID]} twice, the second time in line {line}: give every row its own"
                )
            seen.add(row[ID])
            yield row
        if not seen:
            raise ConfigurationError(f"{self.path} has a header and no rows: name a manifest with utterances")

    def _header(self) -> tuple[str, ...]:
        _, columns = next(self._records(), (0, []))
        refuse_byte_order_mark(self.path, "".join(columns))
        if len(set(columns)) < len(columns) or not columns:
            raise ConfigurationError(
                f"{self.path} is no manifest: its first line {'names a column twice' if columns else 'is missing'}"
            )
        return tuple(columns)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Number and fields of every line that is not empty, which stock leaves out too."""
        try:
            with self.path.open(encoding="utf-8") as file:
                reader = csv.reader(file, delimiter="\t", quotechar=None, doublequote=False, quoting=csv.QUOTE_NONE)
                yield from ((reader.line_num, record) for record in reader if record)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be read ({error.strerror}): name a manifest that you may read"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError(f"{self.path} is no manifest ({error}): name a tab-separated file") from error


def write_manifest(path: Path, columns: Sequence[str], rows: Iterable[Row], inputs: Iterable[Path]) -> int:
    """Write a manifest atomically, row by row.

    Args:
        inputs: the files that the rows come from, which stay as they are.

    Returns:
        How many rows were written.

    Raises:
        ConfigurationError: *path* is an input, a field holds a tab or an end of line, or there are no rows.
    """
    check_output(path, inputs)
    written = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(columns) + "\n")
        for row in rows:
            for column in columns:
                if any(character in row[column] for character in "\t\r\n"):
                    raise ConfigurationError(
                        f"{column} of {row[ID]} would be {row[column][:80]!r}, but no field of a manifest may hold a "
                        "tab or an end of line: replace them by spaces"
                    )
            file.write("\t".join(row[column] for column in columns) + "\n")
            written += 1
        if not written:
            raise ConfigurationError(f"no row is left for {path}: check that the files belong together")
    return written


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to replace what is read.

    Raises:
        ConfigurationError: *output* is one of the inputs.
    """
    for path in inputs:
        if output.resolve() == path.resolve():
            raise ConfigurationError(f"{output} is read, so it is not written: name another file as output")


def with_column(columns: Sequence[str], *new: str) -> tuple[str, ...]:
    """*columns*, and behind them those of *new* that are not among them."""
    return (*columns, *(column for column in new if column not in columns))


def keyed(rows: Iterable[Row], *columns: str) -> dict[str, Any]:
    """Some columns of every row, by its id."""
    return {row[ID]: tuple(row[column] for column in columns) for row in rows}
