"""What a corpus consists of, and all that depends on it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

SPLITS = ("train", "valid", "test")

Unit = TypeVar("Unit")
Parts = dict[str, list[Unit]]


@dataclass(frozen=True)
class SplitRule(Generic[Unit]):
    """What stays together when a corpus is divided.

    Attributes:
        name: value of ``--split``.
        description: one sentence for help texts and for corpus.json.
        group: name of the group a unit belongs to; a group is never divided.
    """

    name: str
    description: str
    group: Callable[[Unit], str]


class Form(ABC, Generic[Unit]):
    """Pairs of sentences, documents: how units of one kind are cleaned, divided and written.

    Attributes:
        texts: a corpus has a file ``SPLIT.TEXT`` of each for each of :data:`SPLITS`. A text's name ends in its
            language, which follows the name of a pair of languages if there are several: ``en``, ``glg-eng.eng``.
        noun: what its units are called, in the plural.
        attachments: the names of files beside these that a corpus may have, see :meth:`attach`.
    """

    texts: tuple[str, ...]
    noun: str
    attachments: tuple[str, ...] = ()

    @property
    def languages(self) -> list[str]:
        """Those of the texts, each once."""
        return list(dict.fromkeys(map(language_of, self.texts)))

    @property
    def files(self) -> list[str]:
        """All that a corpus may consist of, but for its manifest."""
        return [*(f"{split}.{text}" for split in SPLITS for text in self.texts), *self.attachments]

    @abstractmethod
    def clean(self, units: Iterable[Unit]) -> list[Unit]:
        """Tidy units as they are read from a package and leave out those that are not worth learning from."""

    @abstractmethod
    def split(self, units: Sequence[Unit], group: Callable[[Unit], str]) -> Parts[Unit]:
        """Divide clean units into train, valid and test.

        Nothing of a held-out set occurs in train, nothing of test in valid.

        Args:
            units: clean ones; their order is kept inside each set.
            group: of a unit, see :class:`SplitRule`.

        Returns:
            The units of each name in :data:`SPLITS`.
        """

    @abstractmethod
    def check_disjoint(self, parts: Mapping[str, Sequence[Unit]]) -> None:
        """Make sure that :meth:`split` has kept its promise.

        Raises:
            RuntimeError: it has not; figures on such a split would be worthless.
        """

    @abstractmethod
    def lines(self, units: Sequence[Unit], text: str) -> list[str]:
        """The lines of one of :attr:`texts`."""

    @abstractmethod
    def sizes(self, units: Sequence[Unit], text: str) -> dict[str, int]:
        """How much of what there is in a text, for corpus.json and for the reader."""

    def attach(
        self, parts: Mapping[str, Sequence[Unit]], directory: Path, report: Callable[[str], None]
    ) -> dict[str, dict[str, Any]]:
        """Write files that are no texts: recordings, say.

        Args:
            parts: the units of each name in :data:`SPLITS`.
            directory: to write to.
            report: called with lines of progress.

        Returns:
            How much of what there is in each of those :attr:`attachments` that were written.
        """
        del parts, directory, report
        return {}


def language_of(name: str) -> str:
    """The language of a text or of a file."""
    return name.rpartition(".")[2]


def pair_of(text: str) -> str:
    """The pair of languages a text belongs to; an empty name where there is one pair only."""
    return text.rpartition(".")[0]
