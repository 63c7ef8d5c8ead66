"""Rewards are the product of two gradients, as far as a finite difference can tell."""

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.sampling.instance_reward import instance_rewards


def problem(dtype: torch.dtype, examples: int = 6, size: int = 5) -> tuple[nn.Parameter, Tensor, Tensor]:
    """A parameter, a gradient, and a row for each example."""
    generator = torch.Generator().manual_seed(3)
    theta, gradient, rows = (torch.randn(shape, generator=generator) for shape in [(size,), (size,), (examples, size)])
    return nn.Parameter(theta.to(dtype)), gradient.to(dtype), rows.to(dtype)


@pytest.mark.parametrize("eta", [1e-3, 0.1, 1.0])
def test_a_quadratic_loss_is_exact(eta: float) -> None:
    """``l = (a theta - 1)^2 / 2`` has ``R = (a theta - 1) (a g) + eta (a g)^2 / 2``."""
    theta, gradient, rows = problem(torch.float64)
    got = instance_rewards([theta], lambda: (rows @ theta - 1).square() / 2, [gradient], eta)
    along = rows @ gradient
    expected = (rows @ theta.detach() - 1) * along + eta * along.square() / 2
    assert got.dtype == torch.float64
    assert not got.requires_grad
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_error_is_of_the_order_of_eta() -> None:
    """Halving eta halves it."""
    theta, gradient, rows = problem(torch.float64)

    def losses() -> Tensor:
        return nn.functional.softplus(rows @ theta)

    exact = torch.autograd.functional.jacobian(lambda at: nn.functional.softplus(rows @ at), theta.detach()) @ gradient
    etas = [0.1 / 2**i for i in range(6)]
    errors = torch.stack([(instance_rewards([theta], losses, [gradient], eta) - exact).abs() for eta in etas])
    ratios = errors[1:] / errors[:-1]
    torch.testing.assert_close(ratios[-1], torch.full_like(ratios[-1], 0.5), rtol=0, atol=5e-3)
    assert (errors[-1] < 0.01).all()


def test_its_own_gradient_is_rewarded_and_the_opposite_punished() -> None:
    theta, _, rows = problem(torch.float32)
    signs = torch.tensor([1.0, -1.0])

    def losses() -> Tensor:
        return signs * (rows[0] @ theta)

    got = instance_rewards([theta], losses, [rows[0]])
    torch.testing.assert_close(got, signs * rows[0].square().sum(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_less_precise(dtype: torch.dtype) -> None:
    theta, gradient, rows = problem(dtype)
    bits = theta.detach().clone().view(torch.int16)
    got = instance_rewards([theta], lambda: rows.float() @ theta, [gradient])
    torch.testing.assert_close(got, rows.float() @ gradient.float(), rtol=0, atol=2e-3)
    assert theta.dtype == dtype
    assert torch.equal(theta.detach().view(torch.int16), bits)


def test_parameters_without_gradient_and_those_of_several_shapes() -> None:
    a, b, c = (nn.Parameter(torch.full(shape, 2.0, dtype=torch.float64)) for shape in [(2, 2), (3,), ()])
    got = instance_rewards([a, b, c], lambda: (a.sum() * c + b.sum()).reshape(1), [torch.ones(2, 2), None, None])
    torch.testing.assert_close(got, torch.tensor([8.0], dtype=torch.float64))


@pytest.mark.parametrize("call", [1, 2])
def test_all_is_put_back_when_a_loss_cannot_be_computed(call: int) -> None:
    theta, gradient, _ = problem(torch.float16)
    before, place = theta.detach().clone(), theta.data_ptr()
    calls = []

    def losses() -> Tensor:
        calls.append(1)
        if len(calls) == call:
            raise MemoryError
        return theta.sum().reshape(1)

    with pytest.raises(MemoryError):
        instance_rewards([theta], losses, [gradient])
    assert theta.data_ptr() == place
    assert torch.equal(theta, before)


def test_gradients_that_training_gathers_are_left_alone() -> None:
    theta, gradient, rows = problem(torch.float32)
    theta.grad = kept = torch.ones_like(theta)
    instance_rewards([theta], lambda: rows @ theta, [gradient])
    assert theta.grad is kept
    assert kept.eq(1).all()
