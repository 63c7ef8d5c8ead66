"""From sentences to batches."""

from dataclasses import dataclass

import numpy as np
from fairseq.data import FairseqDataset
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How sentences are put into batches: stock's settings."""

    max_tokens: int | None
    max_sentences: int | None
    multiple: int

    def pack(self, dataset: FairseqDataset, indices: Indices) -> list[Indices]:
        """Batches of these sentences, the shortest first, without a sentence being left out.

        Stock drops what is over when the last batch is no multiple of ``--required-batch-size-multiple``. Of a small
        language that may be all there is.
        """
        kept = self._pack(dataset, indices, self.multiple)
        left = len(indices) - sum(map(len, kept))
        return kept + (self._pack(dataset, indices[-left:], 1) if left else [])

    def _pack(self, dataset: FairseqDataset, indices: Indices, multiple: int) -> list[Indices]:
        batches = dataset.batch_by_size(
            indices,
            max_tokens=self.max_tokens,
            max_sentences=self.max_sentences,
            required_batch_size_multiple=multiple,
        )
        return [np.asarray(batch, dtype=np.int64) for batch in batches]
