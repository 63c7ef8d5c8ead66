"""Parameters stand where they are told to, and afterwards exactly where they stood, whatever happened."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.sampling.displacement import displaced, in_float32

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
WIDENED = [(dtype, torch.float64 if dtype == torch.float64 else torch.float32) for dtype in DTYPES]


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in [(3, 4), (5,), ()]]


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


ENTRANCES: dict[str, Callable[[list[nn.Parameter]], AbstractContextManager[None]]] = {
    "displaced": lambda theta: displaced(theta, [torch.randn(p.shape) for p in theta], -0.3),
    "displaced in part": lambda theta: displaced(theta, [None, *(torch.randn(p.shape) for p in theta[1:])], 1e3),
    "in_float32": in_float32,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("fails", [False, True])
def test_all_is_put_back(dtype: torch.dtype, entrance: str, fails: bool) -> None:
    theta = parameters(dtype)
    with torch.no_grad():
        theta[0][0, 0], theta[0][0, 1] = torch.nan, -0.0
    theta[1].grad = torch.ones_like(theta[1])
    before = [(bits(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad) for p in theta]
    seen_elsewhere = theta[0].detach()
    try:
        with ENTRANCES[entrance](theta):
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert [(bits(p), p.data_ptr(), p.dtype, p.requires_grad, p.grad) for p in theta] == before
    with torch.no_grad():
        seen_elsewhere.fill_(2.0)
    assert theta[0].eq(2.0).all()


@pytest.mark.parametrize(("dtype", "wide"), WIDENED)
@pytest.mark.parametrize("gradient_dtype", DTYPES)
def test_the_sum_is_not_rounded_to_half(dtype: torch.dtype, wide: torch.dtype, gradient_dtype: torch.dtype) -> None:
    theta = parameters(dtype)
    gradient = [torch.full(p.shape, 0.5, dtype=gradient_dtype) for p in theta]
    original = [p.detach().clone() for p in theta]
    with displaced(theta, gradient, 1e-4):
        for p, o in zip(theta, original, strict=True):
            assert p.dtype == wide
            torch.testing.assert_close(p.detach(), o.to(wide) + 5e-5, rtol=0, atol=1e-6 if wide == torch.float32 else 0)


@pytest.mark.parametrize(("dtype", "wide"), WIDENED)
def test_widening_changes_no_value(dtype: torch.dtype, wide: torch.dtype) -> None:
    theta = parameters(dtype)
    original = [p.detach().clone() for p in theta]
    with in_float32(theta):
        for p, o in zip(theta, original, strict=True):
            assert p.dtype == wide
            assert torch.equal(p.detach(), o.to(wide))


def test_without_a_gradient_a_parameter_stays() -> None:
    theta = parameters(torch.float16)
    original = [p.detach().clone() for p in theta]
    with displaced(theta, [None] * 3, 1.0):
        assert all(torch.equal(p.detach(), o.float()) for p, o in zip(theta, original, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_gradients_inside_are_those_of_the_displaced_place(dtype: torch.dtype) -> None:
    """Of sum(theta ** 3), which is 3 theta ** 2; nothing is left in ``grad``."""
    theta = parameters(dtype)
    step = [torch.ones(p.shape) for p in theta]
    with displaced(theta, step, -0.25):
        found = torch.autograd.grad(sum(p.pow(3).sum() for p in theta), theta)
        for p, gradient in zip(theta, found, strict=True):
            torch.testing.assert_close(gradient, 3 * p.detach() ** 2)
    for p, gradient in zip(theta, found, strict=True):
        torch.testing.assert_close(gradient, 3 * (p.detach().float() - 0.25) ** 2)
        assert p.grad is None


def test_hooks_on_parameters_in_float32_survive() -> None:
    """They are how gradients are averaged over processes."""
    parameter = nn.Parameter(torch.ones(2))
    node = parameter.view_as(parameter).grad_fn.next_functions[0][0]
    called = []
    node.register_hook(lambda *_: called.append(1))
    with displaced([parameter], [torch.ones(2)], 1.0):
        pass
    parameter.sum().backward()
    assert called == [1]


def test_too_few_gradients() -> None:
    theta = parameters(torch.float32)
    before = [p.data_ptr() for p in theta]
    with pytest.raises(ValueError, match="shorter"), displaced(theta, [torch.ones(3, 4)], 1.0):
        pass
    assert [p.data_ptr() for p in theta] == before
