"""The effects of sox that fairseq asks torchaudio for when it reads audio files; torchaudio 2.9 removed them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def apply_effects_tensor(waveform: Tensor, sample_rate: int, effects: Sequence[Sequence[str]]) -> tuple[Tensor, int]:
    """What torchaudio's function of this name did, for the three effects that fairseq uses.

    Args:
        waveform: float32 (channels, time).
        sample_rate: in Hz.
        effects: each a name with its arguments: ``gain -n`` (the loudest sample becomes 1), ``rate`` with a new sample
            rate in Hz, and ``channels 1`` (their mean).

    Returns:
        The waveform and its sample rate.

    Raises:
        ValueError: there is another effect.
    """
    for effect in effects:
        match list(effect):
            case ["gain", "-n"]:
                waveform = waveform / waveform.abs().max().clamp(min=torch.finfo(waveform.dtype).tiny)
            case ["rate", rate]:
                import torchaudio.functional  # seconds to import, and most programs read no audio

                waveform = torchaudio.functional.resample(waveform, sample_rate, int(rate))
                sample_rate = int(rate)
            case ["channels", "1"]:
                waveform = waveform.mean(dim=0, keepdim=True)
            case other:
                raise ValueError(f"the effect {' '.join(other)} is none of those that fairseq uses")
    return waveform, sample_rate
