"""Finding the entries of a language model's datastore in the text they were made of.

kNN-LM leaves out tokens at the beginning (those without the whole context window) and at the end, and takes the blocks
in the order of their length where there is no such window; efficient-knnlm does so with sentences. So what is stored is
a run of the text in one of two orders.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fairseq_knn.errors import DatastoreError

_COMPARED = 64  # entries, before whole runs are


@dataclass(frozen=True)
class Text:
    """A split as a language model reads it.

    Args:
        name: of the split.
        tokens: all tokens, int32 or int64 (M,).
        blocks: where the blocks of the model's input begin and end in *tokens*, integers (B, 2), in the order of the
            text.
        documents: number of every token's document, integers (M,).
    """

    name: str
    tokens: np.ndarray
    blocks: np.ndarray
    documents: np.ndarray


@dataclass(frozen=True)
class TextOrder:
    """Where the entries of a datastore are in a text.

    Args:
        places: number of every entry's token in the text, int64 (N,).
        blocks: number of every block of which there are entries, in the order of these, int64 (b,).
        lengths: how many entries of each block there are, int64 (b,).
        sorted_by_length: whether the blocks are in the order of their length; else they are in the text's.
    """

    places: np.ndarray
    blocks: np.ndarray
    lengths: np.ndarray
    sorted_by_length: bool

    @cached_property
    def starts(self) -> np.ndarray:
        """First entry of every block, int64 (b,)."""
        starts: np.ndarray = np.cumsum(self.lengths) - self.lengths
        return starts

    def documents(self, text: Text) -> np.ndarray:
        """Number of every entry's document, int64 (N,), ascending: a new one begins wherever the next entry is not the
        next token of the same document of the text."""
        of_text = text.documents[self.places]
        goes_on = (np.diff(self.places) == 1) & (np.diff(of_text) == 0)
        documents: np.ndarray = np.cumsum(np.append(False, ~goes_on))
        return documents


def locate(values: np.ndarray, text: Text) -> TextOrder:
    """Find the entries of a datastore in a text.

    Args:
        values: token of every entry, integers (N,).
        text: what they were made of.

    Raises:
        DatastoreError: they are a run of it in neither order.
    """
    sizes = (text.blocks[:, 1] - text.blocks[:, 0]).astype(np.int64)
    by_length = np.argsort(sizes, kind="stable")
    for sorted_by_length, order in ((False, np.arange(len(sizes))), (True, by_length)):
        ends = np.cumsum(sizes[order])
        places = _ranges(text.blocks[order, 0], sizes[order])
        start = find_run(values, text.tokens[places])
        if start is None:
            continue
        stop = start + len(values)
        lengths = np.minimum(ends, stop) - np.maximum(ends - sizes[order], start)
        there = lengths > 0
        return TextOrder(places[start:stop], order[there], lengths[there], sorted_by_length)
    raise DatastoreError(
        f"the {len(values):,} stored tokens are no run of the {len(text.tokens):,} of {text.name!r}, neither in their "
        "order nor with the blocks in the order of their length: name the data and --gen-subset they are of and, if "
        "blocks were sorted, their --sample-break-mode and --tokens-per-sample"
    )


def find_run(run: np.ndarray, sequence: np.ndarray) -> int | None:
    """Where *run* (n,) first begins in *sequence* (m,); ``None`` if it is not in it."""
    candidates = np.arange(max(0, len(sequence) - len(run) + 1))
    spread = np.linspace(0, len(run) - 1, _COMPARED).astype(np.int64)
    for offset in (*range(min(_COMPARED, len(run))), *spread):
        candidates = candidates[sequence[candidates + offset] == run[offset]]
    for start in candidates.tolist():
        if np.array_equal(sequence[start : start + len(run)], run):
            return int(start)
    return None


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from each start on, one length of them after the other: int64 (sum of lengths,)."""
    ends = np.cumsum(lengths)
    numbers: np.ndarray = np.arange(int(ends[-1])) + np.repeat(starts.astype(np.int64) - (ends - lengths), lengths)
    return numbers
