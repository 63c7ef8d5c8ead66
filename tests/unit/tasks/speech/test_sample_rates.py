"""Audio that was recorded at another rate than the configuration says."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.speech.sample_rates import check_sample_rates


def recorded(path: Path, rate: int) -> str:
    soundfile.write(path, np.zeros(100, np.int16), rate)
    return str(path)


def check(*paths: str, rate: int = 16000, waveforms: bool = False) -> None:
    settings = SimpleNamespace(use_audio_input=waveforms, use_sample_rate=rate)
    dataset: Any = SimpleNamespace(cfg=settings, audio_paths=list(paths))
    check_sample_rates(dataset, "train.tsv", Path("config.yaml"))


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
def test_one_file_of_another_rate(kind: str, tmp_path: Path) -> None:
    good, bad = recorded(tmp_path / f"a.{kind}", 16000), recorded(tmp_path / f"b.{kind}", 8000)
    check(good, good)
    check(bad, rate=8000)
    message = rf"b\.{kind} in train.tsv has 8000 samples a second, but use_sample_rate of config.yaml is 16000"
    with pytest.raises(ConfigurationError, match=message):
        check(good, bad)


def test_every_file_is_looked_at_but_of_many_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = recorded(tmp_path / "a.wav", 16000), recorded(tmp_path / "b.wav", 8000)
    for place in (1, 100, 179):
        paths = [good] * 180
        paths[place] = bad
        with pytest.raises(ConfigurationError, match="8000 samples"):
            check(*paths)
    monkeypatch.setattr("fairseq_knn.tasks.speech.sample_rates._LOOKED_AT", 90)
    check(good, bad, *[good] * 178)
    with pytest.raises(ConfigurationError, match="8000 samples"):
        check(good, good, bad, *[good] * 177)
    check()


def test_waveforms_are_converted_and_features_have_no_rate(tmp_path: Path) -> None:
    check(recorded(tmp_path / "a.wav", 8000), waveforms=True)
    np.save(tmp_path / "a.npy", np.zeros((5, 80)))
    check(str(tmp_path / "a.npy"))


def test_archives(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 80)))
    recorded(tmp_path / "b.wav", 8000)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_STORED) as archive:
        for name in ("a.npy", "b.wav"):
            archive.write(tmp_path / name, name)
    content = (tmp_path / "all.zip").read_bytes()
    parts = []
    for name in ("a.npy", "b.wav"):
        data = (tmp_path / name).read_bytes()
        parts.append(f"{tmp_path / 'all.zip'}:{content.index(data)}:{len(data)}")
    check(parts[0])
    with pytest.raises(ConfigurationError, match="8000 samples"):
        check(*parts)


def test_what_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF, but nothing else")
    with pytest.raises(ConfigurationError, match=r"a\.wav cannot be read as audio"):
        check(str(tmp_path / "a.wav"))
