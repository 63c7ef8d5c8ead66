"""What random numbers of language sampling are for: no two uses share a stream."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """First part of a key, after the seed."""

    PASSES = 1
    SEGMENTS = 2
    ROUNDS = 3
    DEVELOPMENT = 4
    FILTER = 5


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """The same numbers for the same arguments, in every process and every run."""
    return np.random.default_rng([seed % 2**32, stream, *key])
