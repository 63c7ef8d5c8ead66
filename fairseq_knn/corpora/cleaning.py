"""From what packages hold to sentence pairs worth learning from, and what counts as the same sentence.

Rules for every corpus; what only one source needs is in its module in :mod:`.sources`.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator

from fairseq_knn.corpora.pair import Pair

MAX_TOKENS = 60
MAX_RATIO = 3.0
# Below this many characters a ratio says nothing: "OK" is "In Ordnung".
RATIO_FROM = 30

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_WORD = re.compile(r"[^\W\d_]{2}")
# Tags, entities, attributes, tables, links, code. Such pairs are left out rather than stripped: what remains would be
# halves of an instruction.
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|&(?:[A-Za-z]\w*|#\w+);|\w=\"|\||\]\(|`")
# Pictures, box drawing and U+FFFD are all "other symbols"; these few belong to ordinary text.
_SYMBOLS_KEPT = frozenset("°©®™")
_BAD_CATEGORIES = frozenset({"So", "Cn", "Co", "Cs"})


def comparison_key(text: str) -> str:
    """What two texts have in common if they count as the same sentence.

    Case, punctuation, spacing and placeholders make no difference, so "Connect to {host}." and "connect
    to {name}" are one sentence. Equal texts, also up to case, have equal keys.
    """
    return "".join(filter(str.isalnum, _PLACEHOLDER.sub(" ", text).casefold()))


def tidy(text: str) -> str:
    """Compose characters, drop invisible ones, and make every run of white space one space."""
    visible = "".join(
        character for character in unicodedata.normalize("NFC", text) if unicodedata.category(character) != "Cf"
    )
    return " ".join(visible.split())


def clean(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Tidy pairs and yield those that can be translations of each other, each once."""
    seen = set()
    for pair in pairs:
        tidied = dataclasses.replace(pair, source=tidy(pair.source), target=tidy(pair.target))
        if tidied.sides() not in seen and is_usable(tidied):
            seen.add(tidied.sides())
            yield tidied


def is_usable(pair: Pair) -> bool:
    """Whether both sides are ordinary text of comparable length, and not the same text."""
    return (
        all(map(_is_text, pair.sides()))
        and comparison_key(pair.source) != comparison_key(pair.target)
        and _comparable_lengths(*pair.sides())
    )


def _is_text(text: str) -> bool:
    return (
        len(text.split()) <= MAX_TOKENS
        and _WORD.search(_PLACEHOLDER.sub(" ", text)) is not None
        and not _MARKUP.search(text)
        and not any(
            unicodedata.category(character) in _BAD_CATEGORIES and character not in _SYMBOLS_KEPT for character in text
        )
    )


def _comparable_lengths(source: str, target: str) -> bool:
    shorter, longer = sorted((len(source), len(target)))
    return longer <= RATIO_FROM or longer <= MAX_RATIO * shorter
