"""Batches of windows."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, data_utils, iterators

from fairseq_knn.tasks.window_batches import WindowBatches, divide, pack


def dataset(sizes: list[int]) -> LanguagePairDataset:
    """Pairs whose sides are equally long."""
    words = Dictionary()
    words.add_symbol("w")
    side = [torch.full((size,), 4) for size in sizes]
    return LanguagePairDataset(side, np.array(sizes), words, side, np.array(sizes), words)


def sizes(pairs: int) -> list[int]:
    return np.random.default_rng(3).integers(2, 12, pairs).tolist()


def batches(data: LanguagePairDataset, window: int, batch_size: int = 4, **options: Any) -> WindowBatches:
    with data_utils.numpy_seed(1):
        order = data.ordered_indices()
    windows = [pack(data, part, max_sentences=batch_size) for part in divide(order, window)]
    return WindowBatches(data, windows, seed=1, **options)


def read(iterator: Any) -> list[list[int]]:
    """Numbers of the pairs of an epoch, by batch, which has the longest first."""
    return [sorted(batch["id"].tolist()) if batch else [] for batch in iterator.next_epoch_itr()]


def test_every_pair_is_in_one_batch_of_an_epoch() -> None:
    iterator = batches(dataset(sizes(103)), 25)
    epochs = [read(iterator) for _ in range(3)]
    for epoch in epochs:
        assert sorted(chain(*epoch)) == list(range(103))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs == [read(again) for again in [batches(dataset(sizes(103)), 25)] for _ in range(3)]


def test_windows_come_in_the_order_of_the_file() -> None:
    read_in = [{number // 25 for number in batch} for batch in read(batches(dataset(sizes(103)), 25))]
    assert all(len(windows) == 1 for windows in read_in)
    order = [window for (window,) in read_in]
    assert order == sorted(order)
    assert order[-1] == 4


def test_batches_have_pairs_of_similar_length() -> None:
    data = dataset(sizes(100))
    for window in (np.arange(first, first + 25) for first in range(0, 100, 25)):
        longest = sorted(
            [sorted(data.src_sizes[batch]) for batch in read(batches(data, 25)) if set(batch) <= set(window)]
        )
        assert list(chain(*longest)) == sorted(data.src_sizes[window])


def test_no_window_is_the_order_of_the_file_in_every_epoch() -> None:
    iterator = batches(dataset(sizes(10)), 0, disable_shuffling=True)
    for _ in range(2):
        assert read(iterator) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_one_window_is_stocks_order() -> None:
    data = dataset(sizes(50))
    with data_utils.numpy_seed(1):
        order = data.ordered_indices()
    stock = iterators.EpochBatchIterator(data, data.collater, data.batch_by_size(order, max_sentences=4), seed=1)
    ours = batches(data, 50)
    for _ in range(3):
        assert read(ours) == read(stock)


def test_pairs_that_are_left_out_leave_windows_as_they_were() -> None:
    order = np.array([7, 0, 9, 1, 8])
    assert [part.tolist() for part in divide(order, 3)] == [[0, 1], [7, 8], [9]]
    assert [part.tolist() for part in divide(order, 0)] == [[0, 1, 7, 8, 9]]


@pytest.mark.parametrize("pairs", [3, 8, 22])
def test_nothing_is_dropped_for_the_multiple(pairs: int) -> None:
    made = pack(dataset([5] * pairs), np.arange(pairs), max_sentences=8, multiple=8)
    assert np.concatenate(made).tolist() == list(range(pairs))
    assert all(len(batch) == 8 for batch in made[:-1])


def test_the_limit_on_tokens_holds_for_what_stock_would_drop() -> None:
    data = dataset([2] * 8 + [5] * 7)
    for batch in pack(data, np.arange(15), max_tokens=20, multiple=8):
        assert len(batch) * data.src_sizes[batch].max() <= 20


def test_an_epoch_goes_on_within_a_window() -> None:
    straight = batches(dataset(sizes(60)), 25)
    read(straight)
    second = straight.next_epoch_itr()
    for _ in range(9):
        next(second)
    resumed = batches(dataset(sizes(60)), 25)
    resumed.load_state_dict(straight.state_dict())
    assert [sorted(batch["id"].tolist()) for batch in second] == read(resumed)
    assert read(straight) == read(resumed)


def test_processes_share_an_epoch() -> None:
    alone = read(batches(dataset(sizes(61)), 25))
    shares: list[list[list[int]]] = [
        read(batches(dataset(sizes(61)), 25, num_shards=2, shard_id=shard)) for shard in range(2)
    ]
    together = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert together[: len(alone)] == alone
    assert together[len(alone) :] in ([], [[]])


def test_what_is_not_shuffled_is_in_order() -> None:
    data = dataset(sizes(40))
    longest = [
        int(batch["net_input"]["src_lengths"].max()) for batch in batches(data, 20).next_epoch_itr(shuffle=False)
    ]
    assert longest == [*sorted(longest[:5]), *sorted(longest[5:])]
