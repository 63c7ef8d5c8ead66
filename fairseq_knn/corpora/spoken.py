"""Sentence pairs, short ones of which are also read aloud: speech translation with more text than speech.

All sets, of text and of speech, are of one division: what is tested is in nobody's train.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_knn.corpora.cleaning import clean
from fairseq_knn.corpora.form import SPLITS, Form, Parts
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sentences import can_be_held_out, require_disjoint, sentence_keys, unseen
from fairseq_knn.corpora.splits import HELD_OUT, assign

# Pairs in each held-out set: at most this many, or a tenth of all.
HELD_OUT_SIZE = 600
# Words of a sentence that is read aloud: so short that a small model learns in minutes.
SPOKEN_WORDS = range(2, 9)
# Signs that a voice does not read, and digits, which it does not read as they are written.
_UNSPEAKABLE = re.compile(r"[^\w\s.,!?'’-]|[\d_]")


def speakable(pair: Pair) -> bool:
    """Whether both sides are short and made of words alone."""
    return all(len(text.split()) in SPOKEN_WORDS and not _UNSPEAKABLE.search(text) for text in pair.sides())


class Spoken(Form[Pair]):
    """Pairs are aligned lines of two files; those that can be spoken are lines of a manifest too.

    Held-out pairs can all be spoken. One whose side also occurs in train is left out, and so is one of few words. Test
    comes before valid. Files beside the text: ``SPLIT.tsv``, manifests of recordings as stock's speech_to_text reads
    them, ``speech.zip`` with their features, and, where acted dialogue can be had, ``real.tsv`` and ``real.zip``.

    Args:
        source: language of the first side, which is read aloud.
        target: language of the second.
        voice: that reads.
    """

    noun = "pairs"

    def __init__(self, source: str, target: str, voice: str) -> None:
        self.texts = (source, target)
        self.attachments = (*(f"{split}.tsv" for split in SPLITS), "speech.zip", "real.tsv", "real.zip")
        self._voice = voice

    def clean(self, units: Iterable[Pair]) -> list[Pair]:
        return list(clean(units))

    def split(self, units: Sequence[Pair], group: Callable[[Pair], str]) -> Parts[Pair]:
        most = min(HELD_OUT_SIZE, len(units) // 10)
        places = assign(Counter(group(pair) for pair in units if _can_be_held_out(pair)), most)
        parts: Parts[Pair] = {name: [] for name in SPLITS}
        for pair in units:
            parts[places.get(group(pair), "train")].append(pair)
        taken = [sentence_keys(parts["train"], side) for side in (0, 1)]
        for name in HELD_OUT:
            parts[name] = unseen(filter(_can_be_held_out, parts[name]), taken)
        return parts

    def check_disjoint(self, parts: Mapping[str, Sequence[Pair]]) -> None:
        for side, language in enumerate(self.texts):
            require_disjoint({name: sentence_keys(parts[name], side) for name in SPLITS}, language)

    def lines(self, units: Sequence[Pair], text: str) -> list[str]:
        side = self.texts.index(text)
        return [pair.sides()[side] for pair in units]

    def sizes(self, units: Sequence[Pair], text: str) -> dict[str, int]:
        return {"sentences": len(units)}

    def attach(
        self, parts: Mapping[str, Sequence[Pair]], directory: Path, report: Callable[[str], None]
    ) -> dict[str, dict[str, Any]]:
        from fairseq_knn.corpora.speech.recording import act_out, read_aloud

        spoken = {name: list(filter(speakable, parts[name])) for name in SPLITS}
        return {
            **read_aloud(spoken, self._voice, directory, report),
            **act_out(lambda pairs: self._acted(pairs, parts), directory, report),
        }

    def _acted(self, pairs: Iterable[Pair], parts: Mapping[str, Sequence[Pair]]) -> list[Pair]:
        """Dialogue to be tested: as what else is held out, and in no set of the text."""
        everything = [pair for name in SPLITS for pair in parts[name]]
        return unseen(filter(_can_be_held_out, pairs), [sentence_keys(everything, side) for side in (0, 1)])


def _can_be_held_out(pair: Pair) -> bool:
    return speakable(pair) and can_be_held_out(pair)
