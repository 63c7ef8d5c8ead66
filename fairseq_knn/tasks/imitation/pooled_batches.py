"""Batches of one update that know of each other, so that the student's translations are decoded at once."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from fairseq.data import iterators

from fairseq_knn.criterions.student_contexts import PLACE, POOL
from fairseq_knn.errors import ConfigurationError


class PooledBatches(iterators.EpochBatchIterator):
    """fairseq's iterator, of whose batches those of an update that are decoded together say so.

    Within an update the student does not change, so pooling changes nothing but the time; and a checkpoint, which is
    written between updates, is never within a pool.
    """

    kd_pool: int
    kd_update_freq: Sequence[int]

    def _get_iterator_for_epoch(self, epoch: int, *args: Any, **kwargs: Any) -> Any:
        stock = super()._get_iterator_for_epoch(epoch, *args, **kwargs)
        if stock is None:
            return None
        freq = self.kd_update_freq[min(epoch, len(self.kd_update_freq)) - 1]
        pooled = pools(stock, freq, self.kd_pool)
        return iterators.CountingIterator(_Sized(pooled, len(stock)), start=stock.n, total=stock.total)


class _Sized:
    def __init__(self, batches: Iterator[Any], count: int) -> None:
        self._batches, self._count = batches, count

    def __iter__(self) -> Iterator[Any]:
        return self._batches

    def __len__(self) -> int:
        return self._count


def pools(batches: Iterable[Any], freq: int, size: int) -> Iterator[Any]:
    """The same batches; those of a pool are numbered, and the first has the others.

    Args:
        batches: from the beginning of an update on.
        freq: batches of an update.
        size: greatest number of batches of a pool.
    """
    source = iter(batches)
    while update := list(islice(source, freq)):
        for first in range(0, len(update), size):
            part = update[first : first + size]
            real = [batch for batch in part if batch]  # what fills up the last update of a process is empty
            place = 0
            for batch in part:
                if not batch or len(real) == 1:
                    yield batch
                    continue
                pool = {POOL: [{"net_input": x["net_input"], "sentence": x["sentence"]} for x in real[1:]]}
                yield {**batch, PLACE: place, **(pool if place == 0 else {})}
                place += 1


def pool_batches(iterator: Any, size: int, update_freq: Sequence[int]) -> None:
    """Let an iterator of fairseq's form pools.

    Raises:
        ConfigurationError: an update has fewer batches.
    """
    if size > max(update_freq):
        raise ConfigurationError(
            f"--kd-pool {size} decodes batches of one update at once, but --update-freq {max(update_freq)} makes "
            "fewer: lower the one or raise the other"
        )
    iterator.__class__ = PooledBatches
    iterator.kd_pool, iterator.kd_update_freq = size, list(update_freq)
