"""Counting the sentences a run processes, and doing something when the last one is done."""

import atexit
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fairseq_knn.errors import ConfigurationError

logger = logging.getLogger("fairseq_knn")


class AccountedBatches:
    """An epoch iterator that calls back when its batches are used up.

    Stock fairseq-generate tells its task nothing when it is done; the end of the batches is where a
    datastore is finished and the closing line is printed.

    Args:
        epoch_iterator: fairseq's own.
        at_end: called once, after the last batch was processed.
        around: gives a context in which a batch is processed, for programs that do not hand their batches to a task.
    """

    def __init__(
        self,
        epoch_iterator: Any,
        at_end: Callable[[], None],
        around: Callable[[Any], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._epoch_iterator = epoch_iterator
        self._at_end, self._around = at_end, around

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> "_Batches":
        return _Batches(self._epoch_iterator.next_epoch_itr(*args, **kwargs), self._at_end, self._around)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoch_iterator, name)


class _Batches:
    def __init__(
        self, batches: Any, at_end: Callable[[], None], around: Callable[[Any], AbstractContextManager[None]]
    ) -> None:
        self._batches = batches
        self._at_end, self._around = at_end, around

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            with self._around(batch):
                yield batch
        self._at_end()

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


class SentenceCount:
    """How many sentences were to be processed, were left out, and were processed.

    Args:
        unit: what they are called.

    Attributes:
        tokens: how many tokens were scored, if that is counted.
    """

    def __init__(self, unit: str = "sentences") -> None:
        self.unit = unit
        self.split = ""
        self.planned = 0
        self.too_long = 0
        self.processed = 0
        self.tokens = 0
        self._interactive = False

    def expect(self, split: str, planned: int, too_long: int) -> None:
        """Start counting a split."""
        self.split, self.planned, self.too_long, self.processed, self.tokens = split, planned, too_long, 0, 0

    def expect_batches(self, split: str, iterator: Any, max_positions: Any, lengths: str, remedy: str) -> None:
        """Start counting a split whose batches fairseq has made.

        Args:
            split: its name.
            iterator: fairseq's, with the batches of all processes.
            max_positions: that the model takes.
            lengths: what these are counted in.
            remedy: what to do if no sentence is short enough.

        Raises:
            ConfigurationError: none is.
        """
        batches, sentences = iterator.frozen_batches, len(iterator.dataset)
        too_long = sentences - sum(map(len, batches))
        if too_long == sentences:
            raise ConfigurationError(
                f"all {too_long:,} {self.unit} of {split!r} are longer than the {max_positions} {lengths} the model "
                f"takes, so that nothing is left: {remedy}"
            )
        self.expect(split, sum(map(len, batches[iterator.shard_id :: iterator.num_shards])), too_long)

    def add(self, batch: Any) -> None:
        """Count the sentences of a batch."""
        # fairseq-interactive makes batches without ids.
        self.processed += len(batch["id"] if "id" in batch else batch["net_input"]["src_tokens"])

    def expect_input(self, statistics: Callable[[], dict[str, Any]]) -> None:
        """Count lines as they are typed; the closing line comes when the program ends.

        Args:
            statistics: called then, for further figures.
        """
        if not self._interactive:
            self._interactive = True
            atexit.register(lambda: self._close_input(statistics()))

    def _close_input(self, statistics: dict[str, Any]) -> None:
        figures = json.dumps({self.unit: self.processed, **statistics})
        logger.info(f"{self.processed:,} {self.unit} processed | {figures}")

    def close(self, statistics: dict[str, Any]) -> None:
        """Log the closing line: one sentence, then the same figures as JSON."""
        too_long = f"; {self.too_long:,} left out, longer than the model takes" if self.too_long else ""
        missing = self.planned - self.processed
        complaint = f"; {missing:,} MISSING" if missing else ""
        counted = {"tokens": self.tokens} if self.tokens else {}
        figures = {self.unit: self.processed, **counted, "left_out": self.too_long, **statistics}
        logger.info(
            f"{self.processed:,} of {self.planned:,} {self.unit} of {self.split!r} processed{too_long}{complaint} | "
            f"{json.dumps(figures)}"
        )

    def end(self, statistics: dict[str, Any]) -> None:
        """Log the closing line; the run ends here if there was nothing to do."""
        self.close(statistics)
        if self.planned == 0:
            # An array task without sentences, a build that was complete. Stock fairseq-generate would divide by zero in
            # its last line.
            raise SystemExit(0)
