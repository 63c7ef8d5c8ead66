"""What is kept: how many, which, the same each time, and the same after packing."""

import numpy as np
import pytest
import torch

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.filtering import keep_best, keep_random, keep_random_by_length, pack_kept, unpack_kept

FRACTIONS = [0.0, 0.1, 0.2, 1 / 3, 0.5, 0.99]
SIZES = [0, 1, 2, 7, 49, 50, 51, 1234]


def kept_by_each(size: int, fraction: float, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(1, 40, size)
    return {
        "best": keep_best(numbers, fraction),
        "random": keep_random(size, fraction, rng),
        "by length": keep_random_by_length(numbers, fraction, rng),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_how_many(size: int, fraction: float) -> None:
    for kept in kept_by_each(size, fraction).values():
        assert kept.dtype == np.int64
        assert len(kept) == size - int(size * fraction)
        assert (np.diff(kept) > 0).all()
        assert set(kept) <= set(range(size))


def test_the_lowest_are_dropped() -> None:
    assert keep_best([0.3, 0.1, np.inf, 0.2, -5.0], 0.4).tolist() == [0, 2, 3]


def test_of_equal_ones_the_first_are_dropped() -> None:
    assert keep_best(np.full(10, 0.5), 0.3).tolist() == list(range(3, 10))
    assert keep_best([1.0, 0.0, 0.0, 0.0, 2.0], 0.4).tolist() == [0, 3, 4]


def test_without_a_score_a_sentence_is_the_worst() -> None:
    assert keep_best([np.nan, -np.inf, 1.0, np.nan, 2.0], 0.4).tolist() == [1, 2, 4]


@pytest.mark.parametrize("name", ["random", "by length"])
def test_the_seed_decides(name: str) -> None:
    first, again, other = (kept_by_each(1000, 0.3, seed)[name] for seed in [1, 1, 2])
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_sentence_may_be_dropped() -> None:
    rng = np.random.default_rng(0)
    lengths = np.arange(20)
    for draw in (lambda: keep_random(20, 0.5, rng), lambda: keep_random_by_length(lengths, 0.5, rng)):
        counts = np.bincount(np.concatenate([draw() for _ in range(400)]), minlength=20)
        # binomial: 200 of 400 with a standard deviation of 10
        assert counts.min() > 150
        assert counts.max() < 250


def test_the_distribution_of_lengths_is_kept() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 200, 5000)
    kept = keep_random_by_length(lengths, 0.3, rng)
    order = np.argsort(lengths, kind="stable")
    in_bins = np.isin(order, kept).reshape(50, 100).sum(axis=1)
    assert in_bins.tolist() == [70] * 50


def test_bins_of_a_few_sentences_give_their_share() -> None:
    """Four in each: a fifth of that is none, if every bin is rounded for itself."""
    kept = keep_random_by_length(np.arange(200), 0.2, np.random.default_rng(0))
    dropped = np.setdiff1d(np.arange(200), kept)
    assert len(dropped) == 40
    assert np.bincount(dropped // 4, minlength=50).max() == 1
    assert set(np.histogram(dropped, bins=10, range=(0, 200))[0]) <= {3, 4, 5}


@pytest.mark.parametrize("fraction", [-1, -1e-9, 1, 20, np.nan])
@pytest.mark.parametrize("size", [0, 10])
def test_a_fraction_out_of_range(fraction: float, size: int) -> None:
    rng = np.random.default_rng(0)
    for keep in (
        lambda: keep_best(np.zeros(size), fraction),
        lambda: keep_random(size, fraction, rng),
        lambda: keep_random_by_length(np.zeros(size), fraction, rng),
    ):
        with pytest.raises(ConfigurationError, match="--data-filter-percentage"):
            keep()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_packed_and_unpacked(size: int, fraction: float) -> None:
    for kept in kept_by_each(size, fraction).values():
        packed = pack_kept(kept, size)
        assert packed.dtype == torch.uint8
        assert packed.shape == (-(-size // 8),)
        again = unpack_kept(packed)
        assert again.dtype == np.int64
        assert np.array_equal(again, kept)
