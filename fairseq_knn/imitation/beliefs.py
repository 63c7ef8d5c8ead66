"""What an expert believes comes next: a probability for every token, or for a few."""

from typing import NamedTuple

from torch import Tensor


class DenseBelief(NamedTuple):
    """A probability for every token.

    Args:
        probabilities: float (n, V); a row sums to 1.
    """

    probabilities: Tensor


class SparseBelief(NamedTuple):
    """The likeliest tokens; all others have probability 0.

    Args:
        tokens: int64 (n, k), likeliest first, no token twice in a row.
        probabilities: of these tokens, float (n, k); a row sums to 1.
    """

    tokens: Tensor
    probabilities: Tensor


Belief = DenseBelief | SparseBelief


def top_k(probabilities: Tensor, k: int) -> SparseBelief:
    """The *k* likeliest tokens, with probabilities that sum to 1 again; of equally likely ones, the lower id is first.

    Args:
        probabilities: float (n, V).
        k: at most V.
    """
    values, tokens = probabilities.topk(k)
    # torch picks any of the tokens that are as likely as the last one, so rows with more of these are picked again.
    last = values[:, -1:]
    tied = ((probabilities == last).sum(dim=1) > (values == last).sum(dim=1)).nonzero().squeeze(1)
    if len(tied):
        tokens[tied] = probabilities[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    tokens = tokens.sort(dim=1).values
    values, order = probabilities.gather(1, tokens).sort(dim=1, descending=True, stable=True)
    return SparseBelief(tokens.gather(1, order), renormalised(values))


def renormalised(probabilities: Tensor) -> Tensor:
    """Rows that sum to 1, float32 (n, k), or float64 if they were."""
    if probabilities.dtype.itemsize < 4:
        probabilities = probabilities.float()
    return probabilities / probabilities.sum(dim=1, keepdim=True)
