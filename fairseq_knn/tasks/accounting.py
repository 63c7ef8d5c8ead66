"""Counting the sentences a run processes, and doing something when the last one is done."""

import atexit
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger("fairseq_knn")


class AccountedBatches:
    """An epoch iterator that calls back when its batches are used up.

    Stock fairseq-generate tells its task nothing when it is done; the end of the batches is where a
    datastore is finished and the closing line is printed.

    Args:
        epoch_iterator: fairseq's own.
        at_end: called once, after the last batch was processed.
    """

    def __init__(self, epoch_iterator: Any, at_end: Callable[[], None]) -> None:
        self._epoch_iterator = epoch_iterator
        self._at_end = at_end

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> "_Batches":
        return _Batches(self._epoch_iterator.next_epoch_itr(*args, **kwargs), self._at_end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoch_iterator, name)


class _Batches:
    def __init__(self, batches: Any, at_end: Callable[[], None]) -> None:
        self._batches = batches
        self._at_end = at_end

    def __iter__(self) -> Iterator[Any]:
        yield from self._batches
        self._at_end()

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


class SentenceCount:
    """How many sentences were to be processed, were left out, and were processed."""

    def __init__(self) -> None:
        self.split = ""
        self.planned = 0
        self.too_long = 0
        self.processed = 0
        self._interactive = False

    def expect(self, split: str, planned: int, too_long: int) -> None:
        """Start counting a split."""
        self.split, self.planned, self.too_long, self.processed = split, planned, too_long, 0

    def expect_input(self, statistics: Callable[[], dict[str, Any]]) -> None:
        """Count lines as they are typed; the closing line comes when the program ends.

        Args:
            statistics: called then, for further figures.
        """
        if not self._interactive:
            self._interactive = True
            atexit.register(lambda: self._close_input(statistics()))

    def _close_input(self, statistics: dict[str, Any]) -> None:
        figures = json.dumps({"sentences": self.processed, **statistics})
        logger.info(f"{self.processed:,} sentences processed | {figures}")

    def close(self, statistics: dict[str, Any]) -> None:
        """Log the closing line: one sentence, then the same figures as JSON."""
        too_long = f"; {self.too_long:,} left out, longer than the model takes" if self.too_long else ""
        missing = self.planned - self.processed
        complaint = f"; {missing:,} MISSING" if missing else ""
        figures = {"sentences": self.processed, "left_out": self.too_long, **statistics}
        logger.info(
            f"{self.processed:,} of {self.planned:,} sentences of {self.split!r} processed{too_long}{complaint} | "
            f"{json.dumps(figures)}"
        )
