"""Drawing languages by their probabilities."""

import numpy as np
from numpy.typing import NDArray


def stratified_counts(
    probabilities: NDArray[np.float64], total: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """How many of *total* draws each language gets: ``total * P`` rounded up or down, right on average.

    What rounding down leaves over is drawn systematically: one random number decides for all languages, and each gets
    one more with exactly the probability that is left of its share. Independent draws would add noise that the data
    actor would have to learn against.

    Args:
        probabilities: float64 (n,), sums to 1.
        total: number of draws.
        generator: source of the random number.

    Returns:
        int64 (n,), sums to *total*.
    """
    bounds = np.cumsum(probabilities / probabilities.sum()) * total
    bounds[-1] = total
    marks = np.floor(bounds + generator.random()).astype(np.int64)
    # The last bound is a whole number, so its mark is exactly total.
    counts = np.diff(marks, prepend=0)
    return counts


def draw_languages(probabilities: NDArray[np.float64], total: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A language for each of *total* draws, in random order, int64 (total,)."""
    counts = stratified_counts(probabilities, total, generator)
    return generator.permutation(np.repeat(np.arange(len(counts)), counts))
