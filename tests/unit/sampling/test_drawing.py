"""Languages are drawn by their probabilities."""

import numpy as np
import pytest

from fairseq_knn.sampling.drawing import draw_languages, stratified_counts

P = np.array([0.0476, 0.1905, 0.7619])
P /= P.sum()


@pytest.mark.parametrize("total", [1, 2, 25, 1000, 99_999])
def test_counts_are_shares_rounded_up_or_down(total: int) -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        counts = stratified_counts(P, total, generator)
        assert counts.sum() == total
        assert (np.abs(counts - P * total) < 1).all()


def test_rounding_is_right_on_average() -> None:
    generator = np.random.default_rng(2)
    counts = np.stack([stratified_counts(P, 7, generator) for _ in range(20_000)])
    deviation = np.sqrt(0.25 / len(counts))  # of the mean of what is either k or k + 1
    np.testing.assert_allclose(counts.mean(axis=0), P * 7, rtol=0, atol=5 * deviation)


def test_a_hundred_thousand_draws() -> None:
    """Chi-square of independent draws would be 2 on average; systematic draws are closer."""
    drawn = np.bincount(draw_languages(P, 100_000, np.random.default_rng(3)), minlength=3)
    expected = P * 100_000
    assert ((drawn - expected) ** 2 / expected).sum() < 2


def test_the_order_is_random_and_seeded() -> None:
    one, same, other = (draw_languages(P, 200, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, np.sort(one))


def test_one_language() -> None:
    np.testing.assert_array_equal(draw_languages(np.array([1.0]), 5, np.random.default_rng(1)), np.zeros(5))
