"""Parameters that stand somewhere else for a while: a step along a gradient, or more precision."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor


def displaced(
    parameters: Sequence[Tensor], gradient: Sequence[Tensor | None], step: float
) -> AbstractContextManager[None]:
    """Let parameters be ``theta + step * gradient`` inside a ``with`` block.

    The sum is computed and kept in float32 (in float64 for parameters in float64), for a small step would be rounded
    away in half precision. Afterwards every parameter has the memory and the type it had before, and thus every bit,
    whatever was raised. Gradients at the displaced place have to be computed inside the block.

    A parameter in half precision changes its type, and torch then gives it another node to accumulate gradients in:
    hooks on the old one, which ``DistributedDataParallel`` relies on, are never called again. Parameters that such a
    wrapper watches must be in float32.

    Args:
        parameters: theta, floating point; none twice.
        gradient: one for every parameter, of its shape; ``None`` leaves it in its place.
        step: the factor, negative to descend.

    Raises:
        ValueError: there are not as many gradients as parameters.
    """
    return _replaced(
        parameters,
        (
            wide if part is None else torch.add(wide, part.detach().to(wide), alpha=step)
            for wide, part in zip(map(_widened, parameters), gradient, strict=True)
        ),
    )


def in_float32(parameters: Sequence[Tensor]) -> AbstractContextManager[None]:
    """Let parameters in half precision be in float32 inside a ``with`` block, as :func:`displaced` does."""
    return _replaced(parameters, map(_widened, parameters))


def _widened(parameter: Tensor) -> Tensor:
    """The values in at least float32, without gradient; the same memory if nothing is to be done."""
    values = parameter.detach()
    return values.float() if values.dtype.itemsize < 4 else values


@contextmanager
def _replaced(parameters: Sequence[Tensor], values: Iterable[Tensor]) -> Iterator[None]:
    originals: list[tuple[Tensor, Tensor]] = []
    try:
        for parameter, value in zip(parameters, values, strict=True):
            originals.append((parameter, parameter.data))
            parameter.data = value
        yield
    finally:
        for parameter, original in originals:
            parameter.data = original
