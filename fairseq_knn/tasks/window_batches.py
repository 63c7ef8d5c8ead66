"""Batches of a training split that is read window by window, each shuffled on its own."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from fairseq.data import FairseqDataset, data_utils, iterators

Indices: TypeAlias = npt.NDArray[np.int64]


def divide(order: Indices, window: int) -> list[Indices]:
    """Windows of consecutive sentences, in the order of the file.

    Args:
        order: numbers of the sentences that are read (n,), in the order batches are made in.
        window: how many numbers a window has; 0: one window, in the order of the file.

    Returns:
        The numbers of each window that has any, in the order they have in *order*.
    """
    if window == 0:
        return [np.sort(order)]
    number = order // window
    return np.split(order[np.argsort(number, kind="stable")], np.flatnonzero(np.diff(np.sort(number))) + 1)


def pack(
    dataset: FairseqDataset,
    order: Indices,
    max_tokens: int | None = None,
    max_sentences: int | None = None,
    multiple: int = 1,
) -> list[Indices]:
    """Batches of consecutive sentences of *order*, as stock makes them, and one of those that stock would drop.

    Args:
        dataset: that has the sentences.
        order: their numbers.
        max_tokens, max_sentences: the most that a batch has, padding included.
        multiple: ``--required-batch-size-multiple``, of the size of all batches but the last.
    """
    limits = {"max_tokens": max_tokens, "max_sentences": max_sentences}
    batches = list(dataset.batch_by_size(order, **limits, required_batch_size_multiple=multiple))
    rest = order[sum(map(len, batches)) :]
    return [*batches, *(dataset.batch_by_size(rest, **limits) if len(rest) else ())]


class WindowBatches(iterators.EpochBatchIterator):
    """fairseq's iterator, that shuffles batches of one window among each other only.

    Seed and epoch decide the order, as in stock; with one window it is stock's.

    Args:
        dataset: what is read.
        windows: the batches of each.
        options: of fairseq's iterator, but for ``grouped_shuffling``.
    """

    def __init__(self, dataset: FairseqDataset, windows: Sequence[Sequence[Indices]], **options: Any) -> None:
        in_file_order = [batch for window in windows for batch in window]
        super().__init__(dataset, dataset.collater, in_file_order, **options)
        self._frozen_batches: tuple[Indices, ...] = tuple(in_file_order)
        self._windows = windows

    def ordered_batches(self, epoch: int, fix_batches_to_gpus: bool, shuffle: bool) -> list[Indices]:
        """The batches of this process.

        Args:
            epoch: counted from 1.
            fix_batches_to_gpus: makes no difference.
            shuffle: whether each window is shuffled.
        """
        in_file_order = self._frozen_batches
        try:
            if shuffle and not self.disable_shuffling:
                self._frozen_batches = self._shuffled(epoch)
            batches: list[Indices] = super().ordered_batches(epoch, fix_batches_to_gpus, shuffle=False)
            return batches
        finally:
            self._frozen_batches = in_file_order

    def _shuffled(self, epoch: int) -> tuple[Indices, ...]:
        batches: list[Indices] = []
        with data_utils.numpy_seed(self.seed + epoch):
            for window in map(list, self._windows):
                np.random.shuffle(window)
                batches += window
        return tuple(batches)
