"""Features are those that stock fairseq computes of the same audio."""

import io

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.audio.audio_utils import get_fbank

from fairseq_knn.corpora.speech.features import BINS, at_rate, filter_banks, one_thread

RATE = 22050
TONE = (8000 * np.sin(2 * np.pi * 440 * np.arange(RATE // 4) / RATE)).astype(np.int16)


def test_as_stock() -> None:
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format="WAV", subtype="PCM_16")
    file.seek(0)
    features = filter_banks(TONE, RATE)
    assert features.shape == (23, BINS)  # 250 ms, in frames of 25 ms
    np.testing.assert_allclose(features, get_fbank(file), atol=1e-4)


def test_another_rate_is_the_same_tone() -> None:
    assert at_rate(TONE, RATE, RATE) is TONE
    halved = at_rate(TONE, 2 * RATE, RATE)  # read as twice as fast: 880 Hz
    assert len(halved) == pytest.approx(len(TONE) / 2, abs=1)
    spectrum = np.abs(np.fft.rfft(halved))
    assert spectrum.argmax() * RATE / len(halved) == pytest.approx(880, abs=10)


def test_loud_samples_stay_in_range() -> None:
    square = np.where(np.arange(1000) % 20 < 10, 2**15 - 1, -(2**15)).astype(np.int16)
    resampled = at_rate(square, 44100, RATE)
    assert resampled.max() > 30000  # clipped, not wrapped round
    assert np.abs(np.diff(resampled.astype(int))).max() <= 2**16


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
