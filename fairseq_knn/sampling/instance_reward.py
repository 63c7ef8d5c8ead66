"""How much every example of a batch helps on development data (DDS: Wang et al. 2020, arXiv 1911.10088)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fairseq_knn.sampling.displacement import displaced, in_float32

ETA = 0.001


def instance_rewards(
    parameters: Sequence[Tensor],
    losses: Callable[[], Tensor],
    gradient: Sequence[Tensor | None],
    eta: float = ETA,
) -> Tensor:
    """Rewards by a finite difference along the gradient of the development loss.

    ``R(x) = (l(x; theta + eta * g) - l(x; theta)) / eta``, which is the product of g and x's own gradient, with an
    error of the order of eta. Uphill for the development data: the loss of an example that pulls the same way rises,
    and its reward is positive.

    Args:
        parameters: theta, floating point; half precision is widened meanwhile (:mod:`.displacement`).
        losses: computes the loss of every example of the batch at the present parameters, (B,); called twice, and
            anything random in it (dropout) would swamp the difference.
        gradient: g, of the development loss with respect to every parameter; ``None`` where it does not depend on it.
        eta: length of the step in multiples of g.

    Returns:
        rewards, (B,) in the precision of the losses; infinite or NaN where a loss is.
    """
    with torch.no_grad():
        with in_float32(parameters):
            here = losses()
        with displaced(parameters, gradient, eta):
            there = losses()
        return (there - here) / eta
