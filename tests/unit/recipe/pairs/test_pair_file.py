"""Columns of files as users have them."""

import bz2
import gzip
import zipfile
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pairs.pair_file import PairFile

NOTE = "CC-BY 2.0 (France) Attribution: tatoeba.org #1 (CK) & #2 (gillux)"
TATOEBA = f'Go.\tVa !\t{NOTE}\nHe said "no.\tIl a dit « non ».\t{NOTE}\n'
PAIRS = [("Go.", "Va !"), ('He said "no.', "Il a dit « non ».")]


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, TATOEBA if "about" not in name else "About\tthis")
    return path


def read(path: Path, columns: tuple[int, int] = (1, 2), skip_rows: int = 0) -> list[tuple[str, str]]:
    return list(PairFile(path, columns, skip_rows))


@pytest.mark.parametrize(
    "content",
    [
        TATOEBA,
        TATOEBA.encode("utf-8-sig"),
        TATOEBA.replace("\n", "\r\n"),
        TATOEBA.removesuffix("\n"),
        f"\n{TATOEBA}\n  \n",
        gzip.compress(TATOEBA.encode()),
        bz2.compress(TATOEBA.encode()),
    ],
    ids=["plain", "byte order mark", "CRLF", "no last end of line", "empty lines", "gzip", "bzip2"],
)
def test_both_columns_are_read_as_they_are(content: bytes | str, tmp_path: Path) -> None:
    assert read(written(tmp_path / "fra.anything", content)) == PAIRS


def test_zip_is_read_past_the_file_about_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "fra-eng.zip", "_about.txt", "folder/fra.txt", "readme.md")
    assert read(path) == PAIRS


def test_columns_are_those_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "links.tsv", "1276\tLet's go.\t9\tAllons-y.\n1277\tI see.\t11\tJe vois.\n")
    assert read(path, (2, 4)) == [("Let's go.", "Allons-y."), ("I see.", "Je vois.")]
    assert read(path, (4, 2))[0] == ("Allons-y.", "Let's go.")


def test_rows_at_the_head_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path / "named.tsv", f"English\tFrench\n{TATOEBA}")
    assert read(path, skip_rows=1) == PAIRS
    assert read(path)[0] == ("English", "French")


def test_rows_that_lack_a_column_are_counted(tmp_path: Path) -> None:
    pairs = PairFile(written(tmp_path / "a.tsv", f"{TATOEBA}\nhalf a row\nanother\n{TATOEBA}"), (1, 2))
    assert list(pairs) == PAIRS * 2
    assert (pairs.rows, pairs.lacking, pairs.first_lacking) == (6, 2, 4)
    assert list(pairs) == PAIRS * 2
    assert pairs.rows == 6


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("a;b\nc;d\n", (1, 2), r"have 1 column, .*source_column is 1 .*target_column 2: .*tabs, not by semicolons"),
        ("a ||| b\nc ||| d\n", (1, 2), r"not by \|\|\|"),
        ("one\ntwo\n", (1, 2), "separated by tabs$"),
        (TATOEBA, (2, 4), "have 3 columns, but pairs.source_column is 2 and pairs.target_column 4"),
        ("", (1, 2), "has no rows: name"),
        ("\n\n", (1, 2), "has no rows: name"),
        ("a\tb\nc\t\xe9\n".encode("latin-1"), (1, 2), r"is not UTF-8 \(line 2: .*iconv"),
        (TATOEBA.encode("utf-16"), (1, 2), r"is not UTF-8 \(line 1"),
        (gzip.compress(TATOEBA.encode())[:-9], (1, 2), "is damaged or encrypted"),
        (b"PK\x03\x04 and no more", (1, 2), "is damaged or encrypted"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(
    content: bytes | str, columns: tuple[int, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(written(tmp_path / "a.tsv", content), columns)


def test_all_rows_may_be_skipped_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no rows after the first 9 \(pairs.skip_rows\)"):
        read(written(tmp_path / "a.tsv", TATOEBA), skip_rows=9)


def test_zip_of_several_texts_names_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"but holds fra\.txt, deu\.tsv: unzip"):
        read(zipped(tmp_path / "a.zip", "fra.txt", "deu.tsv"))
    with pytest.raises(ConfigurationError, match="but holds nothing: unzip"):
        read(zipped(tmp_path / "empty.zip"))
    with pytest.raises(ConfigurationError, match=r"but holds _about\.txt: unzip"):
        read(zipped(tmp_path / "b.zip", "_about.txt"))


def test_no_file_and_directories_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        PairFile(tmp_path / "absent", (1, 2))
    with pytest.raises(ConfigurationError, match="a directory"):
        PairFile(tmp_path, (1, 2))
