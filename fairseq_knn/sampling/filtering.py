"""Which sentences of a corpus are kept: the best, or some at random to compare with.

All functions drop ``int(N * fraction)`` of N sentences and return the indices of the others in ascending order.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fairseq_knn.errors import ConfigurationError

_BINS = 50


def keep_best(scores: ArrayLike, fraction: float) -> NDArray[np.int64]:
    """Drop the sentences with the lowest scores; of equal ones the first, and before all others those with NaN.

    Args:
        scores: (N,).
        fraction: how many are dropped, in [0, 1).

    Returns:
        kept indices, int64, ascending.

    Raises:
        ConfigurationError: the fraction is out of its range.
    """
    scores = np.asarray(scores)
    # numpy sorts NaN to the end.
    order = np.lexsort((scores, ~np.isnan(scores)))
    return np.sort(order[_dropped(len(scores), fraction) :])


def keep_random(size: int, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Drop sentences at random.

    Args:
        size: number of sentences, N.
        fraction: how many are dropped, in [0, 1).
        rng: what draws them.

    Returns:
        kept indices, int64, ascending.

    Raises:
        ConfigurationError: the fraction is out of its range.
    """
    return np.sort(rng.permutation(size)[_dropped(size, fraction) :])


def keep_random_by_length(lengths: ArrayLike, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Drop sentences at random, as many among the short as among the long.

    The sentences, sorted by length, are cut into 50 bins of one size, and every bin gives its share. It is rounded up
    or down by chance, so that the shares add up and all sentences are as likely to be dropped.

    Args:
        lengths: of the sentences, (N,).
        fraction: how many are dropped, in [0, 1).
        rng: what draws them.

    Returns:
        kept indices, int64, ascending.

    Raises:
        ConfigurationError: the fraction is out of its range.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    size = len(order)
    dropped = _dropped(size, fraction)
    offset = int(rng.integers(max(size, 1)))
    kept, end = [], 0
    for part in np.array_split(order, _BINS):
        start, end = end, end + len(part)
        share = (end * dropped + offset) // max(size, 1) - (start * dropped + offset) // max(size, 1)
        kept.append(rng.permutation(part)[share:])
    return np.sort(np.concatenate(kept))


def pack_kept(kept: NDArray[np.int64], size: int) -> Tensor:
    """A bit for every sentence: an eighth of a byte, where an index takes eight.

    Args:
        kept: indices, int64.
        size: number of sentences, N.

    Returns:
        uint8 (ceil(N / 8),).
    """
    mask = np.zeros(size, dtype=bool)
    mask[kept] = True
    return torch.from_numpy(np.packbits(mask))


def unpack_kept(packed: Tensor) -> NDArray[np.int64]:
    """The indices that :func:`pack_kept` packed, int64, ascending."""
    return np.flatnonzero(np.unpackbits(packed.cpu().numpy()))


def _dropped(size: int, fraction: float) -> int:
    if not 0 <= fraction < 1:
        raise ConfigurationError(
            f"--data-filter-percentage is {fraction}, but it is the share of the sentences that is dropped: choose it "
            "between 0 (none) and 1, and below 1 (all)"
        )
    return int(size * fraction)
