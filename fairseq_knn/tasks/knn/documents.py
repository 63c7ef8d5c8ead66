"""Which document every token of a language model's text is in."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

# " = Valkyria Chronicles = ", as in WikiText; sections have two or more marks on either side.
_TITLE = re.compile(r"^\s*=\s[^=](.*[^=])?\s=\s*$")
_SHORTEST_TITLE = 4  # tokens: two marks, a word, and EOS


def documents_of_lines(lines: Sequence[Tensor], lengths: np.ndarray, dictionary: Any) -> np.ndarray:
    """Numbers of documents, from 0.

    A document begins with a title in the way of WikiText (``= Title =``); in a text without titles, after an empty
    line. In WikiText itself there are empty lines around every heading.

    Args:
        lines: token ids of every line, each with its EOS.
        lengths: how many these are, integers (lines,).
        dictionary: of these ids.

    Returns:
        int64 (lines,), ascending.
    """
    marks = {number for number in range(len(dictionary)) if _plain(dictionary[number]) in ("=", "")}
    begins = np.zeros(len(lines), dtype=bool)
    for number in np.flatnonzero(np.asarray(lengths) >= _SHORTEST_TITLE).tolist():
        tokens = lines[number]
        if int(tokens[0]) in marks and _TITLE.match(_text(tokens[:-1], dictionary)):
            begins[number] = True
    if not begins.any():
        empty = np.asarray(lengths) <= 1  # EOS alone
        begins = ~empty & np.append(False, empty[:-1])
    numbers: np.ndarray = np.cumsum(begins) - begins[0]
    return numbers.astype(np.int64)


class BlockDocuments:
    """Numbers of the documents that the targets of every block are in.

    Args:
        dataset: stock's ``MonolingualDataset``.
    """

    def __init__(self, dataset: Any) -> None:
        blocks = dataset.dataset
        lengths = np.asarray(blocks.dataset.sizes, dtype=np.int64)
        self._of_lines = documents_of_lines(blocks.dataset, lengths, dataset.vocab)
        self._ends = np.cumsum(lengths)
        self._ranges = blocks.slice_indices

    def __call__(self, block: int) -> np.ndarray:
        """Of one block, int64 (T,)."""
        start, stop = map(int, self._ranges[block])
        lines = np.searchsorted(self._ends, np.arange(start, stop), side="right")
        documents: np.ndarray = self._of_lines[lines]
        return documents


def _plain(symbol: str) -> str:
    """A symbol without the marks of sentencepiece and of BPE."""
    return symbol.removesuffix("@@").replace("▁", "").strip()


def _text(tokens: Tensor, dictionary: Any) -> str:
    """The line as it was before it was cut into subwords."""
    symbols = [dictionary[int(token)] for token in tokens]
    if any("▁" in symbol for symbol in symbols):
        return "".join(symbols).replace("▁", " ")
    return " ".join(symbols).replace("@@ ", "")
