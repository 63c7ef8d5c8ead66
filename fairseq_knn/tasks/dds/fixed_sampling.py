"""Sampling by probabilities that stay as they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FixedSampling:
    """Proportional, temperature and uniform sampling.

    Attributes:
        probabilities: of the languages, float64 (n,).
    """

    probabilities: NDArray[np.float64]

    def batches_until_change(self, epoch: int) -> None:
        """They never change."""
        return None
