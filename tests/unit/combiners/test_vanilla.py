"""Vanilla kNN-MT equals a slow loop in float64, at every edge of its settings."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.combiners import VanillaCombiner, mix
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval import Neighbours
from tests.unit.combiners import reference


def combine(log_probs: Tensor, neighbours: Neighbours, weight: float, temperature: float) -> Tensor:
    query = torch.zeros(*log_probs.shape[:-1], 3)
    mixture = VanillaCombiner(weight, temperature).mixture(query, neighbours, log_probs)
    assert mixture.log_weights.dtype == mixture.weight.dtype == torch.float32
    assert mixture.log_weights.shape == neighbours.ids.shape
    assert mixture.weight.shape == (*neighbours.ids.shape[:-1], 1)
    return mix(log_probs.clone(), neighbours.values, mixture)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("weight", [0.0, 2.0**-20, 0.25, 0.75, 1 - 2.0**-20, 1.0])
def test_equals_the_loop(seed: int, k: int, weight: float) -> None:
    log_probs, neighbours = reference.cases(seed, rows=8, k=k, vocabulary=11)
    got = combine(log_probs, neighbours, weight, 10.0)
    np.testing.assert_allclose(got, reference.vanilla(log_probs, neighbours, weight, 10.0), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3, 1e5])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 100.0, 1e6])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_extreme_distances_and_temperatures(scale: float, temperature: float, weight: float) -> None:
    log_probs, neighbours = reference.cases(3, rows=12, k=6, vocabulary=9, scale=scale)
    got = combine(log_probs, neighbours, weight, temperature)
    expected = reference.vanilla(log_probs, neighbours, weight, temperature)
    assert not got.isnan().any()
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=5e-6)


def test_far_neighbours_that_differ_little_keep_their_difference() -> None:
    distances = torch.tensor([[100000.0, 100000.0078125]])
    neighbours = Neighbours(distances, torch.tensor([[1, 2]]), torch.tensor([[1, 2]]))
    log_probs = torch.zeros(1, 4).log_softmax(-1)
    got = combine(log_probs, neighbours, 1.0, 1e-3)
    assert float(got[0, 1] - got[0, 2]) == pytest.approx(7.8125)


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1e-3, 10.0])
def test_sums_to_one(weight: float, temperature: float) -> None:
    log_probs, neighbours = reference.cases(1, rows=40, k=8, vocabulary=50)
    total = combine(log_probs, neighbours, weight, temperature).exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones(40), rtol=0, atol=3e-6)


def test_weights_sum_to_one_over_what_was_found() -> None:
    _, neighbours = reference.cases(2, rows=8, k=5, vocabulary=9)
    mixture = VanillaCombiner(0.4, 2.0).mixture(torch.zeros(8, 3), neighbours, torch.zeros(8, 9))
    any_found = neighbours.found.any(dim=-1)
    torch.testing.assert_close(mixture.log_weights.exp().sum(-1), any_found.float())
    assert torch.equal(torch.isinf(mixture.log_weights), ~neighbours.found)
    assert torch.equal(mixture.weight.squeeze(-1), torch.where(any_found, 0.4, 0.0))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_without_neighbours_the_model_bit_for_bit(weight: float) -> None:
    log_probs, _ = reference.cases(4, rows=6, k=3, vocabulary=200)
    none = Neighbours.none((6,), 3, torch.device("cpu"))
    assert torch.equal(combine(log_probs, none, weight, 10.0), log_probs)


def test_without_weight_the_model_bit_for_bit() -> None:
    log_probs, neighbours = reference.cases(5, rows=8, k=4, vocabulary=200)
    log_probs[0, 1] = -torch.inf
    log_probs[0, 2] = -300.0
    assert torch.equal(combine(log_probs, neighbours, 0.0, 10.0), log_probs)


def test_with_all_weight_the_neighbours_alone() -> None:
    values = torch.tensor([[5, 5, 0], [3, 0, 0]])
    ids = torch.tensor([[1, 2, 3], [4, -1, -1]])
    distances = torch.tensor([[1.0, 1.0, 1.0], [1e5, torch.inf, torch.inf]])
    log_probs = torch.randn(2, 8, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    got = combine(log_probs, Neighbours(distances, ids, values), 1.0, 1e-3)
    expected = torch.full((2, 8), -torch.inf)
    expected[0, 5], expected[0, 0], expected[1, 3] = np.log(2 / 3), np.log(1 / 3), 0.0
    torch.testing.assert_close(got, expected)
    assert got[1, 3] == 0.0


def test_leading_dimensions() -> None:
    log_probs, neighbours = reference.cases(6, rows=24, k=4, vocabulary=7)
    flat = combine(log_probs, neighbours, 0.6, 3.0)
    shaped = Neighbours(*(t.view(2, 3, 4, 4) for t in (neighbours.distances, neighbours.ids, neighbours.values)))
    assert torch.equal(combine(log_probs.view(2, 3, 4, 7), shaped, 0.6, 3.0).view(24, 7), flat)


def test_a_row_does_not_depend_on_the_others() -> None:
    log_probs, neighbours = reference.cases(7, rows=9, k=4, vocabulary=7)
    together = combine(log_probs, neighbours, 0.6, 3.0)
    for row in range(9):
        alone = combine(log_probs[row : row + 1], neighbours.select(torch.tensor([row])), 0.6, 3.0)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


def test_ignores_neighbours_only_without_weight() -> None:
    assert VanillaCombiner(weight=0).ignores_neighbours
    assert not VanillaCombiner(weight=1e-9).ignores_neighbours


@pytest.mark.parametrize("weight", [-0.1, 1.0001, float("nan"), float("inf")])
def test_weight_out_of_its_range(weight: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"lambda is {weight}, .*choose --knn-lambda between 0"):
        VanillaCombiner(weight=weight)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_out_of_its_range(temperature: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"temperature is {temperature}, .*--knn-temperature above 0"):
        VanillaCombiner(temperature=temperature)
