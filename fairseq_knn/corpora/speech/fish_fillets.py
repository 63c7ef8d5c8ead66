"""Acted Czech dialogue with its English translation: the game Fish Fillets NG, from Debian's packages.

Two fish comment on what they see. Every line has an identifier; its recording is a file of that name.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from fairseq_knn.corpora.cleaning import tidy
from fairseq_knn.corpora.speech.debian import Deb, members

DEBS = (
    Deb(
        package="fillets-ng-data",
        version="1.0.1-1.1",
        sha256="25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
        megabytes=71,
    ),
    Deb(
        package="fillets-ng-data-cs",
        version="1.0.1-1.1",
        sha256="3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14",
        megabytes=39,
    ),
)
LICENCE = "GPL-2 (Fish Fillets NG: recordings, transcripts and translations)"

_DIALOGUE = re.compile(r"usr/share/games/fillets-ng/script/([^/]+)/dialogs_cs\.lua")
_SOUND = re.compile(r"usr/share/games/fillets-ng/sound/([^/]+)/cs/([^/]+)\.ogg")
_LINE = re.compile(
    r'dialogId\("([^"]+)",\s*"[^"]*",\s*"((?:[^"\\]|\\.)*)"\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)', re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Recording:
    """An acted line.

    Attributes:
        id: unique, in ASCII.
        samples: shape (samples,), one channel.
        rate: samples a second.
        transcript: Czech.
        translation: English.
    """

    id: str
    samples: NDArray[np.int16]
    rate: int
    transcript: str
    translation: str


def recordings(paths: Sequence[Path]) -> Iterator[Recording]:
    """Yield the lines that have a recording, by their identifiers.

    Args:
        paths: of the packages of :data:`DEBS`.
    """
    lines: dict[tuple[str, str], tuple[str, str]] = {}
    sounds: dict[tuple[str, str], bytes] = {}
    for path in paths:
        for name, content in members(path):
            if match := _DIALOGUE.fullmatch(name):
                for identifier, english, czech in _LINE.findall(content.decode("utf-8")):
                    lines[match[1], identifier] = _plain(czech), _plain(english)
            elif match := _SOUND.fullmatch(name):
                sounds[match[1], match[2]] = content
    for key in sorted(lines.keys() & sounds.keys()):
        czech, english = lines[key]
        if czech and english:
            samples, rate = soundfile.read(io.BytesIO(sounds[key]), dtype="int16", always_2d=True)
            yield Recording("-".join(key), samples[:, 0], rate, czech, english)


def _plain(text: str) -> str:
    return tidy(_ESCAPED.sub(r"\1", text))
