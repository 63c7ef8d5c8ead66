"""Gradients that leave a model as it was, and how alike two of them are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

# One tensor for every parameter; None where the loss does not depend on it, which counts as zero.
Gradient = Sequence[Tensor | None]

SIMILARITIES = ("cosine", "dot_prod")


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """What is trained of a model; a parameter that two modules share is there once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Gradient:
    """Derivative of a loss. ``.grad`` stays as it is, and hooks of distributed training are not called.

    Args:
        loss: scalar.
        parameters: of the model itself, not of a wrapper around it.
    """
    return torch.autograd.grad(loss, list(parameters), allow_unused=True)


def weighted_sum(total: Gradient | None, weight: float, other: Gradient) -> Gradient:
    """``total + weight * other``; *total* is changed in place."""
    if total is None:
        return [None if part is None else part * weight for part in other]
    summed: list[Tensor | None] = []
    for left, right in zip(total, other, strict=True):
        if left is None or right is None:
            summed.append(left if right is None else right * weight)
        else:
            summed.append(left.add_(right, alpha=weight))
    return summed


def inner_product(left: Gradient, right: Gradient) -> Tensor:
    """Scalar product over all parameters, float64 scalar.

    Sums of millions of terms: float32 within a parameter (torch adds in pairs), float64 over the parameters.
    """
    products = [
        torch.dot(one.flatten().float(), other.flatten().float()).double()
        if one.dtype != torch.float64
        else torch.dot(one.flatten(), other.flatten())
        for one, other in zip(left, right, strict=True)
        if one is not None and other is not None
    ]
    return torch.stack(products).sum() if products else torch.zeros((), dtype=torch.float64)


def similarity(left: Gradient, right: Gradient, kind: str = "cosine") -> Tensor:
    """How much a step along one gradient serves the other loss, float64 scalar.

    Args:
        left, right: of the same parameters.
        kind: ``cosine``, which does not depend on the size of the losses and is 0 if one of the gradients is zero; or
            ``dot_prod``.
    """
    product = inner_product(left, right)
    if kind == "dot_prod":
        return product
    if kind != "cosine":
        raise ConfigurationError(f"--grad-sim {kind!r} is unknown: choose from {', '.join(SIMILARITIES)}")
    norms = (inner_product(left, left) * inner_product(right, right)).sqrt()
    return torch.where(norms > 0, product / norms.clamp_min(torch.finfo(torch.float64).tiny), norms)


def similarity_matrix(
    development: Sequence[Callable[[], Gradient]],
    training: Sequence[Callable[[], Gradient]],
    kind: str,
    held: int,
) -> Tensor:
    """Similarity of every development gradient with every training gradient, float64 (K, n).

    The mean of a column is MultiDDS-S's reward of a training language (Wang et al. 2020, section 4.2). It takes K + n
    gradients where all of development fit into memory, and n more for every further block.

    Args:
        development: compute a gradient each; called once.
        training: likewise; called once for every block, with the same result.
        kind: see :func:`similarity`.
        held: how many development gradients are in memory at a time.
    """
    rows: list[Tensor] = []
    for first in range(0, len(development), held):
        block = [compute() for compute in development[first : first + held]]
        columns = []
        for compute in training:
            column = compute()
            columns.append(torch.stack([similarity(row, column, kind) for row in block]))
        rows.append(torch.stack(columns, dim=1))
    return torch.cat(rows)
