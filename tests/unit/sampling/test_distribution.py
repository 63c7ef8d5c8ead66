"""Where sampling starts: sizes under a temperature, and given weights."""

import numpy as np
import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.distribution import size_distribution, softmax, weight_distribution


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [1 / 21, 4 / 21, 16 / 21]),
        (2.0, [1 / 7, 2 / 7, 4 / 7]),
        (0.5, [1 / 273, 16 / 273, 256 / 273]),
        (1e9, [1 / 3, 1 / 3, 1 / 3]),
        (float("inf"), [1 / 3, 1 / 3, 1 / 3]),
        (None, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_sizes_under_a_temperature(temperature: float | None, expected: list[float]) -> None:
    got = size_distribution([1, 4, 16], temperature)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-8)


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 1.5, 5.0, None])
@pytest.mark.parametrize(
    "sizes", [[7], [1, 1], [1, 10**12], [5940, 4510, 10000, 61500, 182000, 208000, 185000, 103000]]
)
def test_is_a_distribution_without_zeros(sizes: list[int], temperature: float | None) -> None:
    got = size_distribution(sizes, temperature)
    assert got.shape == (len(sizes),)
    assert got.sum() == pytest.approx(1, abs=1e-12)
    assert (got > 0).all()
    assert np.isfinite(np.log(got)).all()
    assert (np.diff(got[np.argsort(sizes)]) >= 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_out_of_range(temperature: float) -> None:
    with pytest.raises(ConfigurationError, match=r"--datasize-t above 0"):
        size_distribution([1, 2], temperature)


@pytest.mark.parametrize("temperature", [1.0, None])
def test_empty_training_set(temperature: float | None) -> None:
    with pytest.raises(ConfigurationError, match=r"training set 2 of 3 has 0 sentences.*--lang-pairs"):
        size_distribution([5, 0, 1], temperature)


def test_given_weights_are_normalised() -> None:
    np.testing.assert_allclose(weight_distribution([1.0, 3.0, 4.0]), [0.125, 0.375, 0.5], rtol=1e-12)
    np.testing.assert_allclose(weight_distribution([2e300, 2e300]), [0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(weight_distribution([1e-320]), [1.0])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_weight(weight: float) -> None:
    with pytest.raises(ConfigurationError, match=r"weight 2 of 2 in --lan-dists"):
        weight_distribution([1.0, weight])


def test_softmax_never_gives_zero() -> None:
    got = softmax(np.array([0.0, -1e6, 3e5, 1e300]))
    assert (got > 0).all()
    assert got.sum() == 1
