"""A text of many lines that belong together."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """What is read from its beginning to its end: an article, a book.

    Attributes:
        key: where it comes from inside its package; split rules are made of it.
        title: a few words.
        lines: its paragraphs, headings or verses, in their order, without the title.
    """

    key: str
    title: str
    lines: tuple[str, ...]


def heading(text: str, level: int = 1) -> str:
    """The line that titles a document (level 1) or a section of it (from 2 on), as WikiText has it: `` = Title = ``."""
    marks = " ".join("=" * level)
    return f" {marks} {text} {marks} "


def is_heading(line: str) -> bool:
    """Whether a line is such a one."""
    return line.startswith(" = ") and line.endswith(" = ")
