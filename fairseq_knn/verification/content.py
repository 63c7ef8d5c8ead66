"""What is wrong with the numbers in a datastore, judged block by block.

Every class takes an array's blocks in order and tells afterwards, in half sentences, what it found in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fairseq_knn.datastore.merging import ranges

_NAMED = 5  # absent sentences that are named
_ROUNDING = 1e-3  # nats by which a log-probability may be above 0


@dataclass(frozen=True)
class Symbols:
    """What has to be known of a target dictionary to judge values.

    Args:
        size: number of its symbols; ``None`` if it is not known.
        padding, eos: ids of these, -1 for one that is not known; the defaults are those of fairseq's dictionaries.
    """

    size: int | None
    padding: int = 1
    eos: int = 2


class Tally:
    """How many of an array's rows are wrong, and which is the first."""

    def __init__(self) -> None:
        self.count, self.rows, self.first = 0, 0, 0

    def add(self, wrong: np.ndarray) -> None:
        """Count the next rows; *wrong* is bool (n,)."""
        count = int(np.count_nonzero(wrong))
        if count and not self.count:
            self.first = self.rows + int(np.argmax(wrong))
        self.count += count
        self.rows += len(wrong)

    def told(self, what: str, predicate: str) -> Iterator[str]:
        """``of 500 keys 3 are NaN (the first in row 7)``, or nothing."""
        if self.count:
            verb = "is" if self.count == 1 else "are"
            first = "in" if self.count == 1 else "the first in"
            yield f"of {self.rows:,} {what} {self.count:,} {verb} {predicate} ({first} row {self.first:,})"


class KeyContent:
    """Keys are finite, and a hidden state is never 0 throughout."""

    def __init__(self) -> None:
        self.not_finite, self.zero = Tally(), Tally()

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Judge keys, float16 or float32 (n, d), and give back which are 0 throughout, bool (n,)."""
        # The bits of a float without its sign are in the order of the numbers, infinity and NaN behind all
        # others. The largest of a row tells all there is to know, in one pass.
        bits = np.dtype(f"u{keys.itemsize}")
        largest = (keys.view(bits) & (np.iinfo(bits).max >> 1)).max(axis=1)
        zero: np.ndarray = largest == 0
        self.not_finite.add(largest >= np.array(np.inf, keys.dtype).view(bits))
        self.zero.add(zero)
        return zero

    def faults(self) -> Iterator[str]:
        yield from self.not_finite.told("keys", "NaN or infinite")
        yield from self.zero.told("keys", "0 throughout")


class ValueContent:
    """Values are ids of the vocabulary, and never padding."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._outside, self._padding = Tally(), Tally()

    def add(self, values: np.ndarray) -> None:
        """Judge values, integers (n,)."""
        size = 2**31 if self._symbols.size is None else self._symbols.size
        self._outside.add((values < 0) | (values >= size))
        self._padding.add(values == self._symbols.padding)

    def faults(self) -> Iterator[str]:
        size = self._symbols.size
        outside = "no token id" if size is None else f"none of the {size:,} ids of the vocabulary"
        yield from self._outside.told("values", outside)
        yield from self._padding.told("values", f"{self._symbols.padding}, which is padding and never a target")


class LogProbContent:
    """Log-probabilities are finite and not above 0."""

    def __init__(self) -> None:
        self._not_finite, self._positive = Tally(), Tally()

    def add(self, log_probs: np.ndarray) -> None:
        """Judge log-probabilities, float32 (n,)."""
        finite = np.isfinite(log_probs)
        self._not_finite.add(~finite)
        self._positive.add(finite & (log_probs > _ROUNDING))

    def faults(self) -> Iterator[str]:
        yield from self._not_finite.told("log-probabilities", "NaN or infinite")
        yield from self._positive.told("log-probabilities", "above 0")


class DocumentContent:
    """Numbers of documents never fall."""

    def __init__(self) -> None:
        self._unordered = Tally()
        self._previous = -1

    def add(self, documents: np.ndarray) -> None:
        """Judge the next rows, integers (n,), n > 0."""
        self._unordered.add(documents < np.concatenate([[self._previous], documents[:-1]]))
        self._previous = int(documents[-1])

    def faults(self) -> Iterator[str]:
        yield from self._unordered.told("document numbers", "smaller than the one before, or negative")


class SentenceContent:
    """Sentences are in order, all of a range but those left out, and each is whole.

    Args:
        first, last: the range, ``[first, last)``.
        stored: how many of it the shard's record counts.
    """

    def __init__(self, first: int, last: int, stored: int) -> None:
        self._first, self._stored = first, stored
        self._seen = np.zeros(last - first, bool)
        self._outside, self._unordered, self._misplaced = Tally(), Tally(), Tally()
        self._previous = -1
        self._length = 0  # rows since the start of the sentence in which the last block ended

    def add(self, sentences: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
        """Judge the next rows and give back which begin a sentence, bool (n,).

        Args:
            sentences: integers (n,), n > 0.
            positions: the same, or ``None`` if there are none to judge.
        """
        previous = np.concatenate([[self._previous], sentences[:-1]])
        starts: np.ndarray = sentences != previous
        places = sentences.astype(np.int64) - self._first
        inside = (places >= 0) & (places < len(self._seen))
        self._outside.add(~inside)
        self._unordered.add(sentences < previous)
        self._seen[places[starts & inside]] = True
        rows = np.arange(len(sentences))
        expected = rows - np.maximum.accumulate(np.where(starts, rows, -self._length))
        if positions is not None:
            self._misplaced.add(positions != expected)
        self._previous, self._length = sentences[-1], int(expected[-1]) + 1
        return starts

    def faults(self) -> Iterator[str]:
        """About the sentences; of their absence only if those that are there are in order."""
        first, last = self._first, self._first + len(self._seen)
        wrong = [
            *self._outside.told("sentence numbers", f"outside of the shard's range {first:,} to {last - 1:,}"),
            *self._unordered.told("sentence numbers", "smaller than the one before"),
        ]
        yield from wrong
        found = int(self._seen.sum())
        if not wrong and found != self._stored:
            absent = np.flatnonzero(~self._seen) + first
            named = ranges(absent[:_NAMED].tolist()) + (", ..." if len(absent) > _NAMED else "")
            yield f"it has {found:,} sentences, but its record counts {self._stored:,} (absent: {named or 'none'})"

    def position_faults(self) -> Iterator[str]:
        """About the positions, which can be judged only where the sentences are right."""
        if not (self._outside.count or self._unordered.count):
            yield from self._misplaced.told("positions", "not 0, 1, 2, ... within their sentences")


class Endings:
    """EOS is the last token of every sentence, and nowhere else.

    Args:
        eos: its id, or -1 if that is not known.
    """

    def __init__(self, eos: int) -> None:
        self._eos = eos
        self._sentences, self._ended, self._elsewhere = 0, 0, 0
        self._previous: int | None = None  # value of the row before

    def add(self, starts: np.ndarray, values: np.ndarray) -> None:
        """Judge the next rows of a shard: which begin a sentence, bool (n,), and their values (n,)."""
        is_eos = values == self._eos
        # Whether a row was its sentence's last, the row after it tells.
        before = np.concatenate([[self._previous == self._eos], is_eos[:-1]])
        self._sentences += int(np.count_nonzero(starts))
        self._ended += int(np.count_nonzero(before & starts))
        self._elsewhere += int(np.count_nonzero(before & ~starts))
        self._previous = int(values[-1])

    def end_shard(self) -> None:
        """No row comes after the last one: it ends its sentence."""
        self._ended += self._previous == self._eos
        self._previous = None

    def remarks(self) -> Iterator[str]:
        """No faults: the ids of special symbols belong to the dictionary, and EOS may be a word of the text."""
        unended = self._sentences - self._ended
        if self._eos >= 0 and (unended or self._elsewhere):
            yield (
                f"the id {self._eos}, which is </s> in fairseq's dictionaries, is missing at the end of {unended:,} of "
                f"{self._sentences:,} sentences and found {self._elsewhere:,} times within them: right only if the "
                "dictionary has other ids, or the text was binarised like that"
            )
