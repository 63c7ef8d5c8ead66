"""User-interface texts of Home Assistant's integrations: JSON files with equal keys per language."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from zipfile import ZipFile

from fairseq_knn.corpora.pair import Pair

_ENGLISH = re.compile(r"homeassistant/components/([^/]+)/translations/en\.json")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(\*{1,2}|`+)(?=\S)(.+?)(?<=\S)\1")
_LINE_START = re.compile(r"^\s*(?:[-*•]|\d+[.)]|#+|>)\s+")


def read(wheel: ZipFile, locales: Mapping[str, str]) -> Iterator[Pair]:
    """Yield the pairs of every integration that has a language and English, line by line.

    Args:
        wheel: the opened package.
        locales: what the package calls each language.
    """
    names = set(wheel.namelist())
    for name in sorted(names):
        match = _ENGLISH.fullmatch(name)
        translations = {
            language: other
            for language, locale in locales.items()
            if (other := name.replace("/en.json", f"/{locale}.json")) in names
        }
        if match is None or not translations:
            continue
        english = dict(_flatten(json.loads(wheel.read(name))))
        for language, other in translations.items():
            for key, text in sorted(_flatten(json.loads(wheel.read(other)))):
                if key in english:
                    yield from _lines(f"{match[1]}{key}", text, english[key], language)


def _flatten(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}/{key}")
        elif isinstance(value, str):
            yield f"{path}/{key}", value


def _lines(key: str, text: str, english: str, language: str) -> Iterator[Pair]:
    """Pair a text line by line, unless translators have divided it into other lines."""
    sources, targets = _plain_lines(text), _plain_lines(english)
    if len(sources) == len(targets):
        for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
            yield Pair(f"{key}#{number}", source, target, language)


def _plain_lines(markdown: str) -> list[str]:
    text = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", _IMAGE.sub("", markdown)))
    return [_LINE_START.sub("", line) for line in text.splitlines() if line.strip()]
