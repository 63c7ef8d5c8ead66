"""The one place where distributions are mixed: exact where others lose mass, finite where others are not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairseq_knn.combiners import Mixture, mix
from fairseq_knn.combiners.mixing import token_mass
from tests.unit.combiners import reference

V = 6
LOG_WEIGHTS = st.one_of(st.floats(-5, 0), st.floats(-400, -90), st.just(-math.inf))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    neighbours=st.lists(st.tuples(st.integers(0, V - 1), LOG_WEIGHTS), min_size=1, max_size=9),
    weight=st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 2.0**-149])),
    low=st.floats(-500, -1),
)
def test_equals_the_loop(neighbours: list[tuple[int, float]], weight: float, low: float) -> None:
    values = torch.tensor([[value for value, _ in neighbours]])
    log_weights = torch.tensor([[log_weight for _, log_weight in neighbours]])
    log_probs = torch.tensor([[0.0, -1.0, -2.0, low, low - 1, -math.inf]]).log_softmax(-1)
    expected = reference.mixed(log_probs[0].numpy(), values[0].numpy(), log_weights[0].numpy(), weight)
    got = mix(log_probs, values, Mixture(log_weights, torch.tensor([[weight]])))
    np.testing.assert_allclose(got[0], expected, rtol=1e-6, atol=1e-6)


def test_weights_that_underflow_still_add_up() -> None:
    # exp(-150) is 0 in float32; 1000 neighbours together have exp(-150) * 1000.
    values, log_weights = torch.full((1, 1000), 3), torch.full((1, 1000), -150.0)
    tokens, mass = token_mass(values, log_weights)
    assert (tokens == 3).all()
    torch.testing.assert_close(mass, torch.full((1, 1000), -150 + math.log(1000)))
    got = mix(torch.full((1, 5), -math.inf), values, Mixture(log_weights, torch.ones(1, 1)))
    assert float(got[0, 3]) == pytest.approx(-150 + math.log(1000))


def test_mass_of_tokens() -> None:
    values = torch.tensor([[0, 0, 0, 0], [0, 5, 5, 7], [5, 5, 7, 9], [2, 0, 2, 0]])
    log_weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(4, 4)
    tokens, mass = token_mass(values, log_weights)
    expected = [[1.0] * 4, [0.1, 0.5, 0.5, 0.4], [0.3, 0.3, 0.3, 0.4], [0.6, 0.6, 0.4, 0.4]]
    torch.testing.assert_close(mass.exp(), torch.tensor(expected))
    assert torch.equal(tokens, values.sort(-1).values)


def test_least_keeps_every_token_possible() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log()
    mixture = Mixture(torch.zeros(2, 1), torch.tensor([[1.0], [0.5]]))
    got = mix(log_probs.clone(), torch.tensor([[1], [1]]), mixture, least=-50.0)
    torch.testing.assert_close(got[0], torch.stack([log_probs[0, 0] - 50, torch.zeros(()), log_probs[0, 2] - 50]))
    torch.testing.assert_close(got[1].exp(), torch.tensor([0.25, 0.625, 0.125]))  # the bound is far away


def test_overwrites_its_input_only_without_gradient() -> None:
    mixture = Mixture(torch.zeros(1, 1), torch.full((1, 1), 0.5))
    plain = torch.zeros(1, 4).log_softmax(-1)
    assert mix(plain, torch.tensor([[2]]), mixture).data_ptr() == plain.data_ptr()
    trained = torch.zeros(1, 4).log_softmax(-1).requires_grad_()
    before = trained.detach().clone()
    mix(trained, torch.tensor([[2]]), mixture)
    assert torch.equal(trained, before)


def case(rows: int = 4, k: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, tokens (all repeated, some thrice) and scores, in float64."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(rows, V, generator=generator, dtype=torch.float64)
    values = torch.tensor([[1, 4, 1, 1, 4], [0, 0, 0, 0, 0], [5, 3, 2, 1, 0], [2, 2, 3, 3, 0]])[:rows, :k]
    return logits, values, torch.randn(rows, k, generator=generator, dtype=torch.float64)


def test_gradients() -> None:
    """Repeated tokens, missing neighbours and a query without any, as in the training of a combiner."""
    logits, values, scores = case()
    found = torch.ones_like(values, dtype=torch.bool)
    found[2, 3:] = False
    found[3] = False
    any_found = found.any(dim=-1, keepdim=True)

    def run(logits: Tensor, scores: Tensor, strength: Tensor) -> Tensor:
        masked = torch.where(any_found, scores.masked_fill(~found, -torch.inf), 0.0)
        log_weights = masked.log_softmax(dim=-1).masked_fill(~found, -torch.inf)
        return mix(logits.log_softmax(-1), values, Mixture(log_weights, strength.sigmoid() * any_found))

    strength = torch.tensor([[0.3], [-2.0], [1.0], [0.5]], dtype=torch.float64)
    # Each alone too: with a frozen model its log-probabilities are overwritten while others need gradients.
    for needed in (7, 1, 2, 4, 6):
        inputs = [t.clone().requires_grad_(bool(needed >> i & 1)) for i, t in enumerate((logits, scores, strength))]
        assert torch.autograd.gradcheck(run, inputs)


def test_gradient_of_probabilities_sums_to_nothing() -> None:
    logits, values, scores = case()
    scores.requires_grad_()
    mix(logits.log_softmax(-1), values, Mixture(scores.log_softmax(-1), torch.full((4, 1), 0.5))).exp().sum().backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("strength", [-200.0, 200.0])  # the sigmoid is 0 or 1 in float32
def test_saturated_weight_has_finite_loss_and_gradient(strength: float) -> None:
    logits, values, scores = (t.float() if t.is_floating_point() else t for t in case())
    parameter = torch.full((4, 1), strength, requires_grad=True)
    scores.requires_grad_()
    mixed = mix(logits.log_softmax(-1), values, Mixture(scores.log_softmax(-1), parameter.sigmoid()))
    assert mixed.isfinite().all()
    mixed.sum().backward()
    assert parameter.grad is not None
    assert scores.grad is not None
    assert parameter.grad.isfinite().all()
    assert scores.grad.isfinite().all()
    total = mixed.detach().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=3e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_queries(shape: tuple[int, ...]) -> None:
    mixture = Mixture(torch.zeros(*shape, 3), torch.zeros(*shape, 1))
    got = mix(torch.zeros(*shape, V), torch.zeros(*shape, 3, dtype=torch.int64), mixture)
    assert got.shape == (*shape, V)
