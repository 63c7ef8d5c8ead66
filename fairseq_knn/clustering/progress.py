"""What a long run tells."""

from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

Report = Callable[[str], object]


@dataclass(frozen=True)
class Progress:
    """Lines and bars.

    Args:
        report: called with a line about every step; ``None`` for a silent run, without bars.
    """

    report: Report | None

    def say(self, line: str) -> None:
        if self.report is not None:
            self.report(line)

    def bar(self, what: str, total: int, done: int) -> "tqdm[None]":
        """A bar over keys, of which *done* are done; it tells the time left."""
        return tqdm(total=total, initial=done, desc=what, unit="", unit_scale=True, disable=self.report is None)
