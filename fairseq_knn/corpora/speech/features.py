"""What speech models read: logarithms of Mel filter banks, as stock fairseq's speech tasks compute them."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample

BINS = 80


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread: recordings are so short that several would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def filter_banks(samples: NDArray[np.int16], rate: int) -> NDArray[np.float32]:
    """Features of a recording, a frame every 10 milliseconds.

    Args:
        samples: shape (samples,), of 16 bits, which is the scale Kaldi's features are defined on.
        rate: samples a second.

    Returns:
        Shape (frames, :data:`BINS`); no frames of what is shorter than 25 milliseconds.
    """
    waveform = torch.from_numpy(samples.astype(np.float32)).unsqueeze(0)
    features: NDArray[np.float32] = fbank(waveform, num_mel_bins=BINS, sample_frequency=rate).numpy()
    return features


def at_rate(samples: NDArray[np.int16], rate: int, wanted: int) -> NDArray[np.int16]:
    """A recording with another number of samples a second, shape (samples,) before and after."""
    if rate == wanted:
        return samples
    waveform = resample(torch.from_numpy(samples.astype(np.float32)), rate, wanted)
    resampled: NDArray[np.int16] = waveform.round().clamp(-(2**15), 2**15 - 1).to(torch.int16).numpy()
    return resampled
