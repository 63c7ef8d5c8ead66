"""Which development languages count for the rewards, and the running mean that is taken off them."""

import pytest
import torch

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.utility import (
    UTILITIES,
    RewardBaseline,
    development_weights,
    row_weights,
)

SIMILARITY = torch.tensor(
    [[0.9, 0.1, -0.2, 0.0], [0.3, 0.8, 0.4, -0.6], [-0.1, 0.5, 0.7, 0.2], [0.6, -0.4, 0.3, 1.0]],
    dtype=torch.float64,
)
LOSSES = torch.tensor([3.1, 2.2, 4.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("utility", "rows", "golden"),
    [
        ("ave", [0, 1, 2, 3], [0.425, 0.25, 0.3, 0.15]),
        ("min-half", [0, 2], [0.4, 0.3, 0.25, 0.1]),
        ("max-half", [1, 3], [0.45, 0.2, 0.35, 0.2]),
        ("median", [0, 1], [0.6, 0.45, 0.1, -0.3]),
    ],
)
def test_four_languages(utility: str, rows: list[int], golden: list[float]) -> None:
    got = row_weights(LOSSES, utility, None) @ SIMILARITY
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, torch.tensor(golden, dtype=torch.float64))
    torch.testing.assert_close(got, SIMILARITY[rows].mean(0))


@pytest.mark.parametrize(
    ("utility", "rows"),
    [("ave", [0, 1, 2, 3]), ("min-half", [0, 2]), ("max-half", [1, 3]), ("median", [0, 1])],
)
def test_weighted_mean_over_the_rows_that_count(utility: str, rows: list[int]) -> None:
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)
    expected = sum(weights[k] * SIMILARITY[k] for k in rows) / sum(weights[k] for k in rows)
    torch.testing.assert_close(row_weights(LOSSES, utility, weights) @ SIMILARITY, expected)
    # Only their proportions matter.
    torch.testing.assert_close(row_weights(LOSSES, utility, 7 * weights) @ SIMILARITY, expected)


@pytest.mark.parametrize(("utility", "rows"), [("min-half", [0, 2]), ("max-half", [1]), ("median", [0])])
def test_an_odd_number_of_languages(utility: str, rows: list[int]) -> None:
    losses = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
    assert row_weights(losses, utility).nonzero().flatten().tolist() == rows


@pytest.mark.parametrize("utility", UTILITIES)
def test_one_development_language_counts_always(utility: str) -> None:
    similarity = SIMILARITY[:1]
    got = row_weights(torch.tensor([2.0], dtype=torch.float64), utility, None) @ similarity
    torch.testing.assert_close(got, similarity[0])
    torch.testing.assert_close(row_weights(LOSSES[:1], utility, None) @ similarity[:, :1], similarity[0, :1])


@pytest.mark.parametrize("utility", UTILITIES)
def test_fewer_development_than_training_languages(utility: str) -> None:
    assert (row_weights(LOSSES[:2], utility, None) @ SIMILARITY[:2]).shape == (4,)


@pytest.mark.parametrize("count", range(1, 8))
def test_halves_share_out_the_languages(count: int) -> None:
    losses = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    high, low = row_weights(losses, "min-half") > 0, row_weights(losses, "max-half") > 0
    if count > 1:
        assert torch.equal(high, ~low)
        assert losses[high].min() > losses[low].max()
    for utility in UTILITIES:
        assert float(row_weights(losses, utility).sum()) == pytest.approx(1)


def test_equal_losses_are_told_apart_by_their_order() -> None:
    losses = torch.ones(4, dtype=torch.float64)
    assert row_weights(losses, "min-half").tolist() == [0, 0, 0.5, 0.5]
    assert row_weights(losses, "max-half").tolist() == [0.5, 0.5, 0, 0]


def test_unknown_utility() -> None:
    with pytest.raises(ConfigurationError, match=r"'min-stable'.*ave, min-half, max-half, median.*--utility-type"):
        row_weights(LOSSES, "min-stable", None) @ SIMILARITY


def test_weights_from_the_user() -> None:
    torch.testing.assert_close(development_weights([1, 2.5], 2), torch.tensor([1, 2.5], dtype=torch.float64))
    with pytest.raises(ConfigurationError, match="3 weights for 2 development languages"):
        development_weights([1, 2, 3], 2)
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="--language-weight holds"):
            development_weights([1, weight], 2)


def test_baseline_is_the_running_mean_of_earlier_rounds() -> None:
    rounds = [torch.tensor(r, dtype=torch.float64) for r in ([1.0, 3.0], [4.0, 8.0], [0.0, 1.0])]
    baseline = RewardBaseline()
    got = [baseline.subtract(rewards).tolist() for rewards in rounds]
    # Means 2, 6, 0.5: the baseline is 2, then 4, then 2.25.
    assert got == [[1.0, 3.0], [2.0, 6.0], [-4.0, -3.0]]
    assert baseline.value == 2.25


def test_baseline_goes_on_where_it_was() -> None:
    baseline, again = RewardBaseline(), RewardBaseline()
    again.load_state_dict(baseline.state_dict())
    assert again.subtract(LOSSES).equal(LOSSES)
    baseline.subtract(LOSSES)
    again.load_state_dict(baseline.state_dict())
    assert torch.equal(again.subtract(SIMILARITY[0]), baseline.subtract(SIMILARITY[0]))
