"""Stock fairseq finds in an archive what was put there."""

from pathlib import Path

import numpy as np
from fairseq.data.audio.audio_utils import get_features_or_waveform
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator

from fairseq_knn.corpora.speech.archive import FeatureArchive, Row, manifest


def test_stock_reads_each_recording(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1)
    recordings = {f"train-{n}": numbers.normal(size=(n, 80)).astype(np.float32) for n in (3, 1, 10)}
    with FeatureArchive(tmp_path / "written", "speech.zip") as archive:
        places = {name: archive.add(name, features) for name, features in recordings.items()}
    (tmp_path / "written").rename(tmp_path / "speech.zip")
    for name, features in recordings.items():
        assert places[name].startswith("speech.zip:")
        np.testing.assert_array_equal(get_features_or_waveform(str(tmp_path / places[name])), features)


def test_equal_recordings_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with FeatureArchive(tmp_path / name, "speech.zip") as archive:
            archive.add("a", np.ones((2, 80), np.float32))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_stock_reads_the_manifest(tmp_path: Path) -> None:
    row = Row("train-0", "speech.zip:40:128", 3, 'say "hello"', "espeak-ng", "řekni „ahoj“")
    (tmp_path / "train.tsv").write_text(manifest([row, row]), encoding="utf-8")
    samples = SpeechToTextDatasetCreator._load_samples_from_tsv(str(tmp_path), "train")
    assert samples == 2 * [
        {
            "id": "train-0",
            "audio": "speech.zip:40:128",
            "n_frames": "3",
            "tgt_text": 'say "hello"',
            "speaker": "espeak-ng",
            "src_text": "řekni „ahoj“",
        }
    ]
