"""Mixing the neighbours' distribution into the model's, in log space, touching k tokens of V."""

import torch
from torch import Tensor

from fairseq_knn.combiners.base import Mixture


def mix(log_probs: Tensor, values: Tensor, mixture: Mixture) -> Tensor:
    """``log(lambda * p_neighbours + (1 - lambda) * p_model)``.

    One pass over V and no V-sized temporaries: the model's log-probabilities are shifted by
    ``log(1 - lambda)``, and the neighbours' mass is added with ``logaddexp`` at their tokens only. There is
    no log of zero below lambda = 1; at lambda = 1 tokens without a neighbour get -inf. A query without
    neighbours keeps the model's distribution bit for bit.

    Args:
        log_probs: float32 (..., V). Overwritten, unless it needs a gradient.
        values: the neighbours' tokens, int64 (..., k).
        mixture: weights of these neighbours.

    Returns:
        float32 (..., V).
    """
    shift = torch.log1p(-mixture.weight)
    mixed = log_probs + shift if log_probs.requires_grad else log_probs.add_(shift)
    tokens, mass = token_mass(values, mixture.log_weights + torch.log(mixture.weight))
    return _put(mixed, tokens, torch.logaddexp(mixed.gather(-1, tokens), mass))


def _put(mixed: Tensor, tokens: Tensor, log_probs: Tensor) -> Tensor:
    return mixed.scatter(-1, tokens, log_probs) if mixed.requires_grad else mixed.scatter_(-1, tokens, log_probs)


def token_mass(values: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the weights of neighbours with the same token, in log space.

    Args:
        values: tokens, int64 (..., k).
        log_weights: float32 (..., k); -inf carries no weight.

    Returns:
        the tokens in ascending order, (..., k), and for each the log of the whole mass of its token, so
        that repeated tokens come with equal masses and may be written in any order.
    """
    tokens, order = values.sort(dim=-1)
    weights = log_weights.gather(-1, order)
    first = torch.ones_like(tokens)
    first[..., 1:] = tokens[..., 1:] != tokens[..., :-1]
    group = first.cumsum(dim=-1) - 1
    # The largest weight of each group is taken out before exp: weights far below the smallest float32
    # still add up correctly.
    peak = torch.full_like(weights, -torch.inf).scatter_reduce(-1, group, weights.detach(), "amax")
    peak = peak.clamp(min=torch.finfo(peak.dtype).min).gather(-1, group)
    total = torch.zeros_like(weights).scatter_add(-1, group, torch.exp(weights - peak))
    return tokens, torch.log(total.gather(-1, group)) + peak
