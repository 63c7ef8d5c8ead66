"""Documents of one language: train, valid and test without a line of one in another."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from fairseq_knn.corpora.cleaning import comparison_key, tidy
from fairseq_knn.corpora.document import Document, heading, is_heading
from fairseq_knn.corpora.form import SPLITS, Form, Parts
from fairseq_knn.corpora.splits import HELD_OUT, assign

# Words in each held-out set: at most this many, or a tenth of all.
HELD_OUT_WORDS = 20_000


class RunningText(Form[Document]):
    """Documents follow one another in one file, each under its title, with a blank line between them.

    A line of a held-out document that also occurs in train, in whatever document, is left out: a verse that one book
    quotes from another, say. Headings, which many documents share, stay. Test comes before valid.

    Args:
        language: of all documents.
    """

    noun = "documents"

    def __init__(self, language: str) -> None:
        self.texts = (language,)

    def clean(self, units: Iterable[Document]) -> list[Document]:
        tidied = (
            dataclasses.replace(
                document,
                title=tidy(document.title),
                lines=tuple(filter(None, (line if is_heading(line) else tidy(line) for line in document.lines))),
            )
            for document in units
        )
        return [document for document in tidied if document.lines]

    def split(self, units: Sequence[Document], group: Callable[[Document], str]) -> Parts[Document]:
        words: Counter[str] = Counter()
        for document in units:
            words[group(document)] += _words(document)
        places = assign(words, min(HELD_OUT_WORDS, words.total() // 10))
        parts: Parts[Document] = {name: [] for name in SPLITS}
        for document in units:
            parts[places.get(group(document), "train")].append(document)
        taken = _keys(parts["train"])
        for name in HELD_OUT:
            parts[name] = list(_unseen(parts[name], taken))
            taken |= _keys(parts[name])
        return parts

    def check_disjoint(self, parts: Mapping[str, Sequence[Document]]) -> None:
        keys = {name: _keys(parts[name]) for name in SPLITS}
        for one, other in (("test", "train"), ("valid", "train"), ("test", "valid")):
            if shared := keys[one] & keys[other]:
                raise RuntimeError(f"{len(shared)} lines of {one} occur in {other}, the first: {min(shared)!r}")

    def lines(self, units: Sequence[Document], text: str) -> list[str]:
        blocks = ([heading(document.title), *document.lines, ""] for document in units)
        return list(itertools.chain.from_iterable(blocks))[:-1]

    def sizes(self, units: Sequence[Document], text: str) -> dict[str, int]:
        return {"documents": len(units), "lines": sum(len(document.lines) for document in units)}


def _unseen(documents: Iterable[Document], taken: Collection[str]) -> Iterator[Document]:
    """Documents without the lines that are taken."""
    for document in documents:
        lines = tuple(line for line in document.lines if is_heading(line) or comparison_key(line) not in taken)
        if not all(map(is_heading, lines)):
            yield dataclasses.replace(document, lines=lines)


def _keys(documents: Iterable[Document]) -> set[str]:
    return {comparison_key(line) for document in documents for line in document.lines if not is_heading(line)}


def _words(document: Document) -> int:
    return sum(len(line.split()) for line in document.lines)
