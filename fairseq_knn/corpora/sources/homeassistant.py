"""User-interface texts of Home Assistant's integrations: JSON files with equal keys per language."""

import json
import re
from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

from fairseq_knn.corpora.pair import SOURCE, TARGET, Pair

_FILE = re.compile(r"homeassistant/components/([^/]+)/translations/de\.json")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(\*{1,2}|`+)(?=\S)(.+?)(?<=\S)\1")
_LINE_START = re.compile(r"^\s*(?:[-*•]|\d+[.)]|#+|>)\s+")


def read(wheel: ZipFile) -> Iterator[Pair]:
    """Yield the pairs of every integration that has both languages, line by line."""
    names = set(wheel.namelist())
    for name in sorted(names):
        match = _FILE.fullmatch(name)
        other = name.replace(f"/{SOURCE}.json", f"/{TARGET}.json")
        if match is None or other not in names:
            continue
        english = dict(_flatten(json.loads(wheel.read(other))))
        for key, german in sorted(_flatten(json.loads(wheel.read(name)))):
            if key in english:
                yield from _lines(f"{match[1]}{key}", german, english[key])


def _flatten(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}/{key}")
        elif isinstance(value, str):
            yield f"{path}/{key}", value


def _lines(key: str, german: str, english: str) -> Iterator[Pair]:
    """Pair a text line by line, unless translators have divided it into other lines."""
    sources, targets = _plain_lines(german), _plain_lines(english)
    if len(sources) == len(targets):
        for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
            yield Pair(f"{key}#{number}", source, target)


def _plain_lines(markdown: str) -> list[str]:
    text = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", _IMAGE.sub("", markdown)))
    return [_LINE_START.sub("", line) for line in text.splitlines() if line.strip()]
