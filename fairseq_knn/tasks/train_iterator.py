"""Batches of a training split that an interrupted run makes again as they were."""

from collections.abc import Callable
from typing import Any


def train_iterator(stock: Callable[..., Any], dataset: Any, options: dict[str, Any]) -> Any:
    """Batches of the training split, in any epoch those of the first.

    Stock makes batches from the seed and the epoch it starts in, and keeps them: a run that is resumed in a later epoch
    would train on other batches than one that was not interrupted.

    Args:
        stock: the stock task's ``get_batch_iterator``.
        dataset: the split.
        options: what it is called with.
    """
    epoch = options.pop("epoch", 1)
    if not options.get("num_workers"):
        # Without workers stock loads ahead in a thread; when training stops within an epoch, that thread may end the
        # process with status 134 although everything was saved.
        options["data_buffer_size"] = 0
    if not dataset.can_reuse_epoch_itr_across_epochs:  # its sentences change, so stock makes new batches every epoch
        return stock(dataset, **options, epoch=epoch)
    iterator = stock(dataset, **options, epoch=1)
    if iterator.iterations_in_epoch == 0:  # a new one
        iterator.epoch = epoch
    return iterator
