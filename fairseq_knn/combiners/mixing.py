"""Mixing the neighbours' distribution into the model's, in log space, touching k tokens of V."""

import torch
from torch import Tensor

from fairseq_knn.combiners.base import Mixture


def mix(log_probs: Tensor, values: Tensor, mixture: Mixture, *, least: float = -torch.inf) -> Tensor:
    """``log(lambda * p_neighbours + (1 - lambda) * p_model)``.

    One pass over V and no V-sized temporaries: the model's log-probabilities are shifted by
    ``log(1 - lambda)``, and the neighbours' mass is added with ``logaddexp`` at their tokens only. There is
    no log of zero below lambda = 1; at lambda = 1 tokens without a neighbour get -inf (while lambda is
    trained it stays an epsilon below 1, so that the loss and its gradient are finite). A query without
    neighbours keeps the model's distribution bit for bit.

    Args:
        log_probs: float32 (..., V). Overwritten, unless it needs a gradient.
        values: the neighbours' tokens, int64 (..., k).
        mixture: weights of these neighbours.
        least: lower bound of ``log(1 - lambda)``; a finite one keeps every token possible at lambda = 1.

    Returns:
        float32 (..., V).
    """
    weight = trainable_weight(mixture)
    shift = torch.log1p(-weight).clamp(min=least)
    tokens, mass = token_mass(values, mixture.log_weights + _log(weight))
    added = torch.logaddexp(log_probs.gather(-1, tokens) + shift, mass)
    mixed = log_probs + shift if log_probs.requires_grad else log_probs.add_(shift)
    if added.requires_grad:
        # A repeated token is written with equal values; one of them alone may pass the gradient on.
        added = torch.where(_first_of_group(tokens), added, added.detach())
    return mixed.scatter_(-1, tokens, added)


def target_mass(matches: Tensor, mixture: Mixture) -> Tensor:
    """What neighbours contribute to one token: ``log(lambda * p_neighbours(target))``.

    Args:
        matches: which neighbours' token it is, bool (..., k).
        mixture: weights of these neighbours.

    Returns:
        float32 (...); -inf if none.
    """
    return mixture.log_weights.masked_fill(~matches, -torch.inf).logsumexp(dim=-1) + torch.log(mixture.weight[..., 0])


def mix_target(log_probs: Tensor, mass: Tensor, weight: Tensor) -> Tensor:
    """As :func:`mix`, for one token of V: all that scoring needs.

    Args:
        log_probs: the model's log-probability of the token, float32 (...).
        mass: what neighbours contribute (:func:`target_mass`), float32 (...).
        weight: lambda, float32 (...).

    Returns:
        float32 (...).
    """
    return torch.logaddexp(log_probs + torch.log1p(-weight), mass)


def trainable_weight(mixture: Mixture) -> Tensor:
    """Lambda, (..., 1); where it is trained, kept an epsilon below 1."""
    weight = mixture.weight
    return weight.clamp(max=1 - torch.finfo(weight.dtype).eps) if weight.requires_grad else weight


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
    group = _first_of_group(tokens).cumsum(dim=-1) - 1
    # The largest weight of each group is taken out before exp: weights far below the smallest float32
    # still add up correctly.
    peak = torch.full_like(weights, -torch.inf).scatter_reduce(-1, group, weights.detach(), "amax")
    peak = peak.clamp(min=torch.finfo(peak.dtype).min).gather(-1, group)
    total = torch.zeros_like(weights).scatter_add(-1, group, torch.exp(weights - peak))
    return tokens, _log(total.gather(-1, group)) + peak


def _first_of_group(tokens: Tensor) -> Tensor:
    """Where another token begins in sorted *tokens*, bool (..., k)."""
    first = torch.ones_like(tokens, dtype=torch.bool)
    first[..., 1:] = tokens[..., 1:] != tokens[..., :-1]
    return first


def _log(numbers: Tensor) -> Tensor:
    """The logarithm; what is 0 passes no gradient on, where that of ``torch.log`` would become NaN."""
    if not numbers.requires_grad:
        return torch.log(numbers)
    zero = numbers == 0
    return torch.log(numbers.masked_fill(zero, 1.0)).masked_fill(zero, -torch.inf)
