"""Which sentences of a batch the student goes on from its own translation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def student_sentences(sentences: Tensor, beta: float, seed: int, update: int) -> Tensor:
    """Draw for each sentence on its own whether its context is what the student decoded: with probability 1 - beta.

    The draw is a hash of seed, update and the sentence's number. So it is the same in whatever batch, order and process
    a sentence comes, and the random generators stay as they are.

    Args:
        sentences: their numbers in the split, int64 (B,).
        beta: probability of the reference; 1 is never the student, 0 is always the student.
        seed: of the training.
        update: number of the update.

    Returns:
        bool (B,), on the device of *sentences*.
    """
    state = _mixed(np.array([seed % 2**64], np.uint64))
    state = _mixed(state ^ np.array([update % 2**64], np.uint64))
    state = _mixed(state ^ sentences.cpu().numpy().astype(np.uint64))
    uniform = (state >> np.uint64(11)) * 2.0**-53  # in [0, 1): never below 0, always below 1
    return torch.from_numpy(uniform >= beta).to(sentences.device)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits of which every one depends on every bit of *state*, uint64 (n,)."""
    state = state + _INCREMENT
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
