"""Seeded samples of entries."""

import numpy as np


def sample_entries(entries: int, size: int, seed: int) -> np.ndarray:
    """At most *size* different entries of ``range(entries)``, increasing, int64; equal for equal seeds."""
    chosen = np.random.default_rng(seed).choice(entries, min(size, entries), replace=False)
    return np.sort(chosen)
