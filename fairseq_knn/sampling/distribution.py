"""Distributions over training languages that are known before training."""

from collections.abc import Sequence

import numpy as np

from fairseq_knn.errors import ConfigurationError

_TINY = float(np.finfo(np.float64).tiny)


def softmax(log_weights: np.ndarray) -> np.ndarray:
    """Probabilities in proportion to ``exp(log_weights)``.

    Args:
        log_weights: float64 (n,), finite.

    Returns:
        float64 (n,), sums to 1. None is 0, however small: its logarithm is taken again.
    """
    weights = np.exp(log_weights - log_weights.max())
    probabilities: np.ndarray = np.maximum(weights / weights.sum(), _TINY)
    return probabilities


def size_distribution(sizes: Sequence[int], temperature: float | None) -> np.ndarray:
    """Probabilities that grow with the amount of data, ``p ~ size^(1/T)`` (Arivazhagan et al. 2019, arXiv 1907.05019).

    Args:
        sizes: of the training sets, in sentences.
        temperature: T > 0: 1 is in proportion to the sizes, more is more even. ``None``: uniform.

    Returns:
        float64 (n,), above 0, sums to 1.

    Raises:
        ConfigurationError: a set is empty, or T is not above 0.
    """
    for number, size in enumerate(sizes, 1):
        if size <= 0:
            raise ConfigurationError(
                f"training set {number} of {len(sizes)} has {size} sentences, but every language is drawn with a "
                "probability above 0: leave its pair out of --lang-pairs"
            )
    if temperature is None:
        return np.full(len(sizes), 1 / len(sizes))
    if not temperature > 0:
        raise ConfigurationError(
            f"the temperature of the data sizes is {temperature}, but sizes are raised to the power 1/T: choose "
            "--datasize-t above 0, or leave it out for equal probabilities"
        )
    # In the logarithm, where no power is too large.
    return softmax(np.log(np.asarray(sizes, dtype=np.float64)) / temperature)


def weight_distribution(weights: Sequence[float]) -> np.ndarray:
    """Given weights as probabilities.

    Args:
        weights: one for each training language.

    Returns:
        float64 (n,), above 0, sums to 1.

    Raises:
        ConfigurationError: a weight is not above 0, or not finite.
    """
    for number, weight in enumerate(weights, 1):
        if not 0 < weight < float("inf"):
            raise ConfigurationError(
                f"weight {number} of {len(weights)} in --lan-dists is {weight}, but every language is drawn with a "
                "probability above 0: give it a finite weight above 0, or leave its pair out of --lang-pairs"
            )
    return softmax(np.log(np.asarray(weights, dtype=np.float64)))
