"""Dealing the sentences of a language: every one once before any comes again."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

Card = TypeVar("Card")


class Deck(Generic[Card]):
    """Cards in an order that is random and new in every pass, and depends on the number of the pass alone.

    So the whole state is how many were dealt, and small languages are read more often than large ones without a
    sentence being preferred.

    Args:
        shuffled: the cards of a pass, from its number; as many in every pass.
        dealt: how many were dealt before.
    """

    def __init__(self, shuffled: Callable[[int], Sequence[Card] | NDArray[Any]], dealt: int = 0) -> None:
        self._shuffled = shuffled
        self._turn = 0
        self._cards = shuffled(0)
        self.dealt = dealt

    def __len__(self) -> int:
        """How many cards a pass has."""
        return len(self._cards)

    def deal(self, count: int) -> list[Card]:
        """The next cards, across the ends of passes."""
        return [card for part in self.slices(count) for card in part]

    def slices(self, count: int) -> Iterator[Sequence[Card] | NDArray[Any]]:
        """The same in parts, one of each pass."""
        while count > 0:
            turn, first = divmod(self.dealt, len(self))
            if turn != self._turn:
                self._turn, self._cards = turn, self._shuffled(turn)
            taken = self._cards[first : first + count]
            self.dealt += len(taken)
            count -= len(taken)
            yield taken
