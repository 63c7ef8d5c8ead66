"""Articles of the English Wikipedia: the excerpt of a dump (April 2016) among the test data of gensim.

Wiki markup nests and is closed at will, so this is no parser: what is not prose (templates, tables, pictures,
references, formulas) is cut out from the inside to the outside, and what is left of the rest is its text.
"""

import bz2
import html
import re
from collections.abc import Callable, Iterator
from typing import IO
from xml.etree import ElementTree
from zipfile import ZipFile

from fairseq_knn.corpora.document import Document, heading

_FILE = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_SPACE = "{http://www.mediawiki.org/xml/export-0.10/}"
# Paragraphs of fewer words are captions, stubs of lists, and what is left of a formula.
_MIN_WORDS = 8
# Sections that hold no prose.
_APPARATUS = re.compile(
    r"(?:see also|references|notes|footnotes|citations|sources|external links|further reading|bibliography|gallery"
    r"|works cited|publications|notes and references|filmography|discography|awards.*|selected works.*)",
    re.IGNORECASE,
)
_DISAMBIGUATION = re.compile(r"\{\{\s*(?:disambig\w*|dab|geodis|hndis|surname|given name)\b", re.IGNORECASE)

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# Elements that go with all they hold; the others leave their text.
_NO_PROSE = "ref|math|chem|gallery|timeline|imagemap|score|syntaxhighlight|source|pre|code|hiero|table"
_EMPTY_ELEMENT = re.compile(rf"<(?:{_NO_PROSE}|br)\b[^<>]*/>", re.IGNORECASE)
_ELEMENT = re.compile(rf"<({_NO_PROSE})\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"^[:*\s]*\{\|(?:(?!\{\|).)*?^\s*\|\}", re.DOTALL | re.MULTILINE)
_FILE_LINK = re.compile(
    r"\[\[\s*(?:File|Image|Category)\s*:(?:[^\[\]]|\[[^\[\]]*\]|\[\[[^\[\]]*\]\])*\]\]", re.IGNORECASE
)
_LINK = re.compile(r"\[\[:?(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_WEB_LINK = re.compile(r"\[(?:https?:|ftp:)?//[^\s\]]*\s*([^\]]*)\]")
_QUOTES = re.compile(r"'{2,5}")
_MAGIC_WORD = re.compile(r"__[A-Z]+__")
_LIST_MARK = re.compile(r"^[*#:;]+\s*")
_SECTION = re.compile(r"^(={2,6})\s*(.*?)\s*\1\s*$")
# What is left where something was cut out of brackets, or before a stop.
_HOLLOW = re.compile(r"\(\s*(?:[,;:]|or\b|and\b|\s)*\s*\)")
_TORN = (
    (re.compile(r"\(\s*(?:[,;:]\s*)+"), "("),
    (re.compile(r"(?:\s*[,;:])+\s*\)"), ")"),
    (re.compile(r"\s+([,.;:!?)])"), r"\1"),
    (re.compile(r"\(\s+"), "("),
)


def read(wheel: ZipFile) -> Iterator[Document]:
    """Yield the articles in the order of the dump; redirections and lists of meanings are none."""
    with wheel.open(_FILE) as packed, bz2.open(packed) as dump:
        for title, text in _pages(dump):
            lines = tuple(_lines(text))
            if lines and not _DISAMBIGUATION.search(text):
                yield Document(title, title, lines)


def article(document: Document) -> str:
    """Every article is a group of its own."""
    return document.key


def _pages(dump: IO[bytes]) -> Iterator[tuple[str, str]]:
    for _, page in ElementTree.iterparse(dump):
        if page.tag != f"{_SPACE}page":
            continue
        title, space = page.findtext(f"{_SPACE}title"), page.findtext(f"{_SPACE}ns")
        if title and space == "0" and page.find(f"{_SPACE}redirect") is None:
            yield title, page.findtext(f"{_SPACE}revision/{_SPACE}text") or ""
        page.clear()


def _lines(markup: str) -> Iterator[str]:
    """Paragraphs, and the headings that have some below them."""
    headings: list[tuple[int, str]] = []
    skipped = 0  # level of the section that is being left out
    for line in _prose(markup).splitlines():
        if section := _SECTION.match(line):
            level, title = len(section[1]), _mended(section[2])
            if skipped and level > skipped:
                continue
            skipped = level if _APPARATUS.fullmatch(title) else 0
            headings = [(above, text) for above, text in headings if above < level]
            if title and not skipped:
                headings.append((level, title))
        elif not skipped and _is_paragraph(text := _mended(_LIST_MARK.sub("", line))):
            yield from (heading(title, level) for level, title in headings)
            headings = []
            yield text


def _prose(markup: str) -> str:
    text = _COMMENT.sub("", markup)
    text = _ELEMENT.sub("", _EMPTY_ELEMENT.sub(" ", text))
    text = _repeatedly(_TEMPLATE, lambda match: _rendered(match[1]), text)
    text = _repeatedly(_TABLE, lambda _: "", text)
    text = _FILE_LINK.sub("", text)
    text = _repeatedly(_LINK, lambda match: match[1], text)
    text = _WEB_LINK.sub(r"\1", text)
    text = _MAGIC_WORD.sub("", _TAG.sub("", _QUOTES.sub("", text)))
    return html.unescape(text)


def _repeatedly(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str) -> str:
    """Replace what is innermost until nothing is left."""
    count = 1
    while count:
        text, count = pattern.subn(replacement, text)
    return text


def _rendered(template: str) -> str:
    """What a template shows, if that is part of a sentence."""
    name, *arguments = (part.strip() for part in template.split("|"))
    values = [argument for argument in arguments if "=" not in argument]
    match name.casefold():
        case "convert" | "cvt" if len(values) >= 2:
            return f"{values[0]} {values[1]}"
        case "lang" | "transl" | "lang-en" if values:
            return values[-1]
        case "nowrap" | "small" | "big" | "nobr" | "sc" | "quote" | "'" if values:
            return values[0]
        case "ndash" | "snd" | "spaced ndash":
            return " – "
        case "mdash":
            return "—"
    return ""


def _mended(line: str) -> str:
    """Close the gaps that were cut into a line."""
    line = _HOLLOW.sub("", line)
    for torn, whole in _TORN:
        line = torn.sub(whole, line)
    return " ".join(line.split())


def _is_paragraph(text: str) -> bool:
    """Whether a line is prose: long enough, and nothing of the markup's skeleton."""
    return (
        len(text.split()) >= _MIN_WORDS
        and text[0] not in "|!{}"
        and not re.search(r"\[\[|\]\]|\{\||\|\}|\{\{|\}\}", text)
    )
