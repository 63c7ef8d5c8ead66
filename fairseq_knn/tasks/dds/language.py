"""The sentences of one language."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from numpy.typing import NDArray


@dataclass(frozen=True)
class Language:
    """A language pair and those of its sentences that count.

    Attributes:
        name: of the pair.
        dataset: of it alone.
        members: sentences of *dataset*, int64, ascending.
    """

    name: str
    dataset: FairseqDataset
    members: NDArray[np.int64]

    def only(self, places: NDArray[np.int64]) -> "Language":
        """The same with some of the members: those in these places among them."""
        return replace(self, members=self.members[places])

    @classmethod
    def fitting(cls, name: str, dataset: FairseqDataset, max_positions: Any) -> "Language":
        """With all sentences that are not too long."""
        indices, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), max_positions)
        return cls(name, dataset, np.sort(np.asarray(indices, dtype=np.int64)))
