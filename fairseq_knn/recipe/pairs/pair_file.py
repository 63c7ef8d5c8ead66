"""Sentence pairs of a tab-separated file, row by row: the file as it is, or zipped, .gz or .bz2.

There is no quoting: a quotation mark is a character, and every tab divides columns.
"""

import bz2
import contextlib
import gzip
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.byte_order_mark import BYTE_ORDER_MARK

# The first bytes tell how a file is compressed; its name may say anything.
_ZIP, _GZIP, _BZIP2 = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b", b"BZh"
_EXAMINED_ROWS = 1000
_OTHER_SEPARATORS = {"|||": "|||", ";": "semicolons", ",": "commas", "|": "vertical bars", "  ": "spaces"}
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)
# Smaller files are read before a bar would help anyone.
_BAR_FROM_BYTES = 16 << 20


class PairFile:
    """Two columns of a file, read as often as it is iterated over.

    Args:
        path: of the file.
        columns: of source and target; the first is 1.
        skip_rows: rows at the head that are no pairs.

    Attributes:
        rows: that were read, without those at the head and empty ones.
        lacking: how many of them do not have both columns.
        first_lacking: line number of the first of those.

    Raises:
        ConfigurationError: there is no such file.
    """

    def __init__(self, path: Path, columns: tuple[int, int], skip_rows: int = 0) -> None:
        if path.is_dir():
            raise ConfigurationError(f"pairs.file is {path}, a directory: name the file of sentence pairs")
        if not path.is_file():
            raise ConfigurationError(
                f"pairs.file is {path}, which does not exist: name a tab-separated file of sentence pairs"
            )
        self.path, self.columns, self.skip_rows = path, columns, skip_rows
        self.rows = self.lacking = self.first_lacking = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield both sides of every row that has them.

        Raises:
            ConfigurationError: the file cannot be read, is not UTF-8, holds no rows, or most of its first thousand
                lack a column.
        """
        self.rows = self.lacking = self.first_lacking = 0
        rows = self._rows()
        examined = list(itertools.islice(rows, _EXAMINED_ROWS))
        if not examined:
            raise ConfigurationError(
                f"{self.path} has no rows"
                + (f" after the first {self.skip_rows} (pairs.skip_rows)" if self.skip_rows else "")
                + ": name a file with sentence pairs"
            )
        self._check_columns([fields for _, fields in examined])
        source, target = (column - 1 for column in self.columns)
        for number, fields in itertools.chain(examined, rows):
            self.rows += 1
            if len(fields) > max(source, target):
                yield fields[source], fields[target]
            else:
                self.lacking += 1
                self.first_lacking = self.first_lacking or number

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line numbers and columns."""
        for number, raw in enumerate(_lines(self.path), 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ConfigurationError(
                    f"{self.path} is not UTF-8 (line {number}: {error.reason}): convert it "
                    "(iconv -f ENCODING -t UTF-8 FILE > NEW)"
                ) from error
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if number > self.skip_rows and line.strip():
                yield number, line.rstrip("\r\n").split("\t")

    def _check_columns(self, rows: list[list[str]]) -> None:
        needed = max(self.columns)
        found = [len(fields) for fields in rows]
        if 2 * sum(number >= needed for number in found) >= len(rows):
            return
        most = max(sorted(set(found)), key=found.count)
        hint = "set pairs.source_column and pairs.target_column"
        if most == 1:
            hint = "columns have to be separated by tabs"
            for separator, name in _OTHER_SEPARATORS.items():
                if 2 * sum(separator in fields[0] for fields in rows) > len(rows):
                    hint += f", not by {name} as they seem to be"
                    break
        raise ConfigurationError(
            f"the rows of {self.path} have {most} column{'s'[: most > 1]}, but pairs.source_column is "
            f"{self.columns[0]} and pairs.target_column {self.columns[1]}: {hint}"
        )


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed."""
    try:
        with path.open("rb") as file, _decompressed(path, file) as (stream, size):
            disable = None if path.stat().st_size >= _BAR_FROM_BYTES else True
            with tqdm(
                total=size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=disable, mininterval=1
            ) as bar:
                for line in stream:
                    bar.update(len(line))
                    yield line
    except PermissionError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
    except _DAMAGE as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}): it is damaged or encrypted; fetch it again, or decompress it yourself"
        ) from error


@contextlib.contextmanager
def _decompressed(path: Path, file: IO[bytes]) -> Iterator[tuple[Iterable[bytes], int | None]]:
    """The text in a file, and its size in bytes if that is known."""
    beginning = file.read(4)
    file.seek(0)
    if beginning.startswith(_ZIP):
        with zipfile.ZipFile(file) as archive:
            member = _only_text(path, archive)
            with archive.open(member) as text:
                yield text, member.file_size
    elif beginning.startswith(_GZIP):
        with gzip.open(file) as text:
            yield text, None
    elif beginning.startswith(_BZIP2):
        with bz2.open(file) as text:
            yield text, None
    else:
        yield file, path.stat().st_size


def _only_text(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one file with pairs: files whose names begin with ``_`` tell about it (manythings.org's ``_about.txt``)."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    texts = [
        member
        for member in members
        if PurePosixPath(member.filename).suffix.lower() in (".txt", ".tsv")
        and not PurePosixPath(member.filename).name.startswith(("_", "."))
    ]
    if len(texts) != 1:
        names = ", ".join(member.filename for member in (texts or members)[:5]) or "nothing"
        raise ConfigurationError(
            f"{path} is to hold one .txt or .tsv file, but holds {names}: unzip the file of sentence pairs and name it"
        )
    return texts[0]
