"""The model's log-probabilities cut down to what the training of a combiner reads.

Mixing shifts the log-probability of every token by ``log(1 - lambda)``, except that of the neighbours' tokens. So a
loss over V tokens needs a few columns, and of all other tokens only their number and the sum of their
log-probabilities. Cut once, a position costs some dozen numbers at each of thousands of updates, not V.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_knn.combiners.base import Combiner, Mixture
from fairseq_knn.combiners.mixing import mix, trainable_weight
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval.neighbours import Neighbours


@dataclass(frozen=True)
class NarrowedLogProbs:
    """Log-probabilities of a few tokens, and what has to be known of all others.

    Args:
        log_probs: float32 (..., C) with C = 1 + k + highest: the target, the neighbours' tokens, the model's highest; a
            column whose token has an earlier column, and that of a missing neighbour, is -inf.
        columns: the first column of every neighbour's token, int64 (..., k); the same for equal tokens, 0 for the
            target and where there is no neighbour.
        rest: sum of the log-probabilities of all tokens without a column, float32 (...,).
        others: how many these are, int64 (...,).
    """

    log_probs: Tensor
    columns: Tensor
    rest: Tensor
    others: Tensor

    @property
    def highest(self) -> int:
        """How many of the model's highest log-probabilities are certainly among the columns."""
        return self.log_probs.size(-1) - self.columns.size(-1) - 1

    def name_columns(self, neighbours: Neighbours) -> Neighbours:
        """The neighbours with columns in place of tokens, for combiners that are given :attr:`log_probs`.

        Args:
            neighbours: those this was made with, or the nearest of them, (..., at most k).
        """
        return replace(neighbours, values=self.columns[..., : neighbours.ids.size(-1)])


class Mixed(NamedTuple):
    """What a loss needs of a mixture over V tokens.

    Args:
        target: log-probability of the target, float32 (...,).
        total: sum of the log-probabilities of all V tokens, float32 (...,), for label smoothing.
        hit: whether no token is likelier than the target, bool (...,).
    """

    target: Tensor
    total: Tensor
    hit: Tensor


def narrow(log_probs: Tensor, target: Tensor, neighbours: Neighbours, highest: int = 8) -> NarrowedLogProbs:
    """Cut log-probabilities down.

    Args:
        log_probs: of the model, finite, float (..., V); read, not written. Half precision is added up in float32.
        target: the reference's tokens, int64 (...,).
        neighbours: of these positions, (..., k).
        highest: how many of the model's highest log-probabilities to keep: at least one, or the mixture's likeliest
            token might have no column, and at least as many as the combiner looks at (:func:`check_highest`). V if
            there are fewer tokens.
    """
    target, vocabulary = target.unsqueeze(-1), log_probs.size(-1)
    if log_probs.dtype.itemsize < 4:
        log_probs = log_probs.float()
    best = log_probs.topk(min(highest, vocabulary), dim=-1).indices
    # A missing neighbour repeats the target, so that it gets no column of its own.
    tokens = torch.cat([target, torch.where(neighbours.found, neighbours.values, target), best], dim=-1)
    # Of several equal numbers argmax gives the first.
    first = (tokens.unsqueeze(-1) == tokens.unsqueeze(-2)).to(torch.uint8).argmax(dim=-1)
    repeated = first != torch.arange(tokens.size(-1), device=tokens.device)
    return NarrowedLogProbs(
        log_probs.gather(-1, tokens).masked_fill(repeated, -torch.inf),
        first[..., 1 : 1 + neighbours.ids.size(-1)],
        # Not the difference of two large sums: what is left may be little.
        log_probs.scatter(-1, tokens, 0.0).sum(dim=-1),
        vocabulary - (~repeated).sum(dim=-1),
    )


def check_highest(combiner: Combiner, highest: int) -> None:
    """Make sure that a combiner sees as much of the model as it looks at.

    Raises:
        ConfigurationError: it looks at more than the *highest* log-probabilities that are kept.
    """
    if combiner.top > highest:
        raise ConfigurationError(
            f"the {combiner.kind} combiner looks at the model's {combiner.top} highest probabilities, but {highest} "
            f"were kept for its training: keep {combiner.top}, or train one that looks at {highest}"
        )


def narrowed_mixture(combiner: Combiner, query: Tensor, neighbours: Neighbours, narrowed: NarrowedLogProbs) -> Mixture:
    """What a combiner makes of the neighbours, from the columns.

    Args:
        combiner: any.
        query: hidden states, (..., d).
        neighbours: with columns as values (:meth:`NarrowedLogProbs.name_columns`), (..., at most k).
        narrowed: of these positions.

    Raises:
        ConfigurationError: the combiner looks at more of the model's highest probabilities than were kept.
    """
    check_highest(combiner, narrowed.highest)
    return combiner.mixture(query, neighbours, narrowed.log_probs)


def mix_narrowed(narrowed: NarrowedLogProbs, neighbours: Neighbours, mixture: Mixture) -> Mixed:
    """Mix, and give what a (label-smoothed) cross-entropy over V tokens is made of.

    Equals what comes of :func:`~fairseq_knn.combiners.mix` over V tokens, gradients included. Only where the target is
    exactly as likely as another token, argmax over V may name the other while here the target counts as hit.

    Args:
        narrowed: of the model; left as it is.
        neighbours: with columns as values (:meth:`NarrowedLogProbs.name_columns`), (..., at most k).
        mixture: weights of these neighbours.
    """
    # A copy: mix overwrites what needs no gradient, and this comes from a cache. A missing neighbour has no weight, so
    # that its column, the target's, is only shifted.
    mixed = mix(narrowed.log_probs.clone(), neighbours.values, mixture)
    shift = torch.log1p(-trainable_weight(mixture)).squeeze(-1)
    own = narrowed.log_probs > -torch.inf
    # 0 * log(0) where lambda is 1 and every token has a column
    others = torch.where(narrowed.others > 0, narrowed.others * shift, 0.0)
    total = mixed.masked_fill(~own, 0.0).sum(dim=-1) + narrowed.rest + others
    return Mixed(mixed[..., 0], total, mixed[..., 0] >= mixed.amax(dim=-1))
