"""Manifests as tests write and read them: by hand, so that the package's own reader is not trusted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

WriteTsv = Callable[..., Path]
ReadTsv = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def write_tsv(tmp_path: Path) -> WriteTsv:
    """Writes ``NAME`` with these columns and rows."""

    def write(name: str, columns: str, *rows: Sequence[str]) -> Path:
        path = tmp_path / name
        lines = ["\t".join(columns.split()), *("\t".join(row) for row in rows)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read_tsv() -> ReadTsv:
    """The rows of a file, in which there are no quotes."""

    def read(path: Path) -> list[dict[str, str]]:
        header, *lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]

    return read
