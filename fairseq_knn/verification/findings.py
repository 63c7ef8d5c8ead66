"""Finding everything that is wrong with a datastore, not only the first that hinders its use."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.verification.content import Symbols

Advance = Callable[[int], object]

_BLOCK_BYTES = 4 << 20  # of keys: what is read is then judged while it is in the processor's cache


@dataclass(frozen=True)
class Finding:
    """What a check has to say.

    Args:
        text: one sentence; of a fault, with its remedy.
        fault: whether something is wrong.
    """

    text: str
    fault: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """The target dictionary a datastore is compared with.

    Args:
        symbols: its size and special ids.
        digest: its fingerprint.
        source: where it was read, for messages.
    """

    symbols: Symbols
    digest: str
    source: str


class Check(ABC):
    """One datastore that is to be read as a whole.

    Attributes:
        bytes: that will be read.
        datastore: the datastore, to go on with to its index; ``None`` if it is unfinished or cannot be opened.
        index_is_testable: whether no fault has been found in what its index is tested with.
    """

    bytes: int
    datastore: Datastore | None = None
    index_is_testable = True

    @abstractmethod
    def findings(self, advance: Advance) -> Iterator[Finding]:
        """Read everything, and tell what is found as soon as it is.

        Args:
            advance: called with the number of bytes after every block.
        """

    @abstractmethod
    def figures(self) -> str:
        """What is there, for a closing line."""


def block_rows(row_bytes: int) -> int:
    """Keys to read at a time."""
    return max(1, _BLOCK_BYTES // row_bytes)
