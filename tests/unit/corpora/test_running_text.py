"""Documents: divided as wholes, no line in two sets, one file with titles and blank lines."""

import random

import pytest

from fairseq_knn.corpora.document import Document, heading, is_heading
from fairseq_knn.corpora.form import SPLITS
from fairseq_knn.corpora.running_text import HELD_OUT_WORDS, RunningText
from fairseq_knn.corpora.splits import HELD_OUT

FORM = RunningText("en")
NOTES = heading("Notes", 2)


def book(document: Document) -> str:
    return document.key[:2]


@pytest.fixture
def documents() -> list[Document]:
    """Thirty books in two editions; many lines occur in several of them, in other cases and with other punctuation."""
    numbers = random.Random(1)
    return [
        Document(
            f"{number:02}.{edition}",
            f"Book {number}",
            (
                NOTES,
                *(
                    f"{'And' if edition == 'a' else 'and'} it came to pass {numbers.randrange(2000)}{edition}."
                    for _ in range(60)
                ),
                "So be it!" if edition == "a" else "so be it",
            ),
        )
        for edition in "ab"
        for number in range(30)
    ]


def prose(documents: list[Document]) -> set[str]:
    return {line.casefold().strip(".!") for document in documents for line in document.lines if not is_heading(line)}


def test_no_line_is_in_two_sets_and_books_are_not_divided(documents: list[Document]) -> None:
    parts = FORM.split(documents, book)
    FORM.check_disjoint(parts)
    lines, books = ([of(parts[name]) for name in SPLITS] for of in (prose, lambda part: set(map(book, part))))
    for sets in (lines, books):
        assert all(sets)
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]
    assert "so be it" in lines[0]
    assert all(NOTES in document.lines for name in HELD_OUT for document in parts[name])


def test_train_loses_nothing_but_the_held_out_books(documents: list[Document]) -> None:
    parts = FORM.split(documents, book)
    held_out = {book(document) for name in HELD_OUT for document in parts[name]}
    assert [document for document in documents if book(document) not in held_out] == parts["train"]


def numbered(count: int, lines: int = 1) -> list[Document]:
    """Documents of different lines of eight words."""
    text = "seven words are in this line and"
    return [Document(str(n), "Book", tuple(f"{text} {n}x{i}" for i in range(lines))) for n in range(count)]


def key(document: Document) -> str:
    return document.key


def test_sizes() -> None:
    parts = FORM.split(numbered(900, 50), key)
    for name in HELD_OUT:
        words = sum(len(line.split()) for document in parts[name] for line in document.lines)
        assert 0.8 * HELD_OUT_WORDS <= words <= HELD_OUT_WORDS
    few = FORM.split(numbered(40, 50), key)
    assert {name: len(few[name]) for name in SPLITS} == {"train": 32, "valid": 4, "test": 4}


def test_places_do_not_change_between_versions() -> None:
    """A change here changes every published figure: raise RECIPE and say so in the changelog."""
    parts = FORM.split(numbered(40), key)
    assert {name: [document.key for document in parts[name]] for name in HELD_OUT} == {
        "test": ["8", "10", "13", "39"],
        "valid": ["4", "9", "17", "29"],
    }


def test_a_document_of_borrowed_lines_alone_is_left_out() -> None:
    own = numbered(40)
    borrowed = [Document(f"b{n}", "Copy", (NOTES, *own[n].lines)) for n in range(40)]
    parts = FORM.split([*own, *borrowed], key)
    FORM.check_disjoint(parts)
    left = {document.key for name in SPLITS for document in parts[name]}
    train = {document.key.strip("b") for document in parts["train"]}
    held_out = {document.key for name in HELD_OUT for document in parts[name]}
    assert len(left) < 80
    assert not held_out & train


def test_a_leak_is_found() -> None:
    own = numbered(3)
    parts = {"train": own[:1], "valid": own[1:2], "test": own[2:]}
    FORM.check_disjoint(parts)
    parts["train"] = [*own[:1], Document("9", "Copy", tuple(line.upper() for line in own[2].lines))]
    with pytest.raises(RuntimeError, match="1 lines of test occur in train, the first: 'sevenwords"):
        FORM.check_disjoint(parts)


def test_cleaned_and_written() -> None:
    documents = [
        Document("1", " A  title ", ("two  words", "\u200b", heading("Section", 3), "u\u0308ber")),
        Document("2", "Empty", (" ",)),
        Document("3", "Last", ("end",)),
    ]
    cleaned = FORM.clean(documents)
    assert FORM.lines(cleaned, "en") == [
        *(" = A title = ", "two words", " = = = Section = = = ", "\u00fcber", ""),
        *(" = Last = ", "end"),
    ]
    assert FORM.sizes(cleaned, "en") == {"documents": 2, "lines": 4}
    assert FORM.lines([], "en") == []
