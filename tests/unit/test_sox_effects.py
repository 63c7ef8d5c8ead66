"""Audio files are read although torchaudio has no sox any more."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn import hooks
from fairseq_knn.sox_effects import apply_effects_tensor

RATE = 16000


def tone(frequency: float, rate: int = RATE, seconds: float = 0.5) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(rate * seconds)) / rate)


def test_channels_become_their_mean() -> None:
    one, other = tone(300), tone(500)
    mixed, rate = apply_effects_tensor(torch.stack([one, other]), RATE, [["channels", "1"]])
    assert rate == RATE
    torch.testing.assert_close(mixed, ((one + other) / 2)[None])


def test_a_tone_keeps_its_frequency_at_another_rate() -> None:
    resampled, rate = apply_effects_tensor(tone(440)[None], RATE, [["rate", "8000"]])
    assert rate == 8000
    inner = slice(100, -100)  # filters do not know what comes before and after
    torch.testing.assert_close(resampled[0, inner], tone(440, 8000)[inner], rtol=0, atol=0.01)


def test_the_loudest_sample_becomes_one() -> None:
    louder, _ = apply_effects_tensor(0.1 * tone(440)[None] - 0.02, RATE, [["gain", "-n"]])
    assert louder.abs().max() == 1
    silent, _ = apply_effects_tensor(torch.zeros(1, 8), RATE, [["gain", "-n"]])
    assert not silent.any()


def test_other_effects_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the effect reverb 50 is none"):
        apply_effects_tensor(torch.zeros(1, 8), RATE, [["reverb", "50"]])


def test_fairseq_reads_audio(tmp_path: Path) -> None:
    """The second channel is silent, so the mean of both is half of the first."""
    from fairseq.data.audio.audio_utils import get_features_or_waveform, get_waveform

    soundfile = pytest.importorskip("soundfile")
    hooks.install()
    path = tmp_path / "a.wav"
    sound = tone(440).numpy()
    soundfile.write(path, np.stack([sound, np.zeros_like(sound)], axis=1), RATE)
    features = get_features_or_waveform(str(path))
    assert features.shape == (1 + (len(sound) - 400) // 160, 80)  # windows of 25 ms, every 10 ms
    waveform, _ = get_waveform(str(path), always_2d=False)
    np.testing.assert_allclose(waveform, sound / 2, atol=1e-4)
    slower = get_features_or_waveform(str(path), need_waveform=True, use_sample_rate=8000)
    assert len(slower) == len(sound) / 2
