"""A stretch of batches that are drawn by the same probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """A stretch of an epoch in which the probabilities stay the same: with it, its batches can be drawn again.

    Attributes:
        number: of all segments so far; what is random in it depends on this.
        start: batches of the epoch before it, over all processes.
        length: its batches, over all processes.
        probabilities: in force.
        dealt: how far the deck of each language was when it began.
        left: sentences of each language that were dealt before and not read (where languages are drawn by sentence).
    """

    number: int
    start: int
    length: int
    probabilities: Sequence[float]
    dealt: Sequence[int]
    left: Sequence[Sequence[int]]
