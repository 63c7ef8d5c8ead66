"""Sentence pairs: train, valid and test without a sentence of one in another."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from fairseq_knn.corpora.cleaning import clean
from fairseq_knn.corpora.form import SPLITS, Form, Parts
from fairseq_knn.corpora.pair import LANGUAGES, Pair
from fairseq_knn.corpora.sentences import can_be_held_out, require_disjoint, sentence_keys, unseen
from fairseq_knn.corpora.splits import HELD_OUT, assign

# Pairs in each held-out set: at most this many, or a tenth of all.
HELD_OUT_SIZE = 1000


class Parallel(Form[Pair]):
    """Pairs are aligned lines of two files.

    A held-out pair one of whose sides also occurs in train is left out, and so is a short one. Test comes
    before valid: what both would have is left out of valid.
    """

    texts = LANGUAGES
    noun = "pairs"

    def clean(self, units: Iterable[Pair]) -> list[Pair]:
        return list(clean(units))

    def split(self, units: Sequence[Pair], group: Callable[[Pair], str]) -> Parts[Pair]:
        most = min(HELD_OUT_SIZE, len(units) // 10)
        places = assign(Counter(group(pair) for pair in units if can_be_held_out(pair)), most)
        parts: Parts[Pair] = {name: [] for name in SPLITS}
        for pair in units:
            parts[places.get(group(pair), "train")].append(pair)
        taken = [sentence_keys(parts["train"], side) for side in range(len(LANGUAGES))]
        for name in HELD_OUT:
            parts[name] = unseen(filter(can_be_held_out, parts[name]), taken)
        return parts

    def check_disjoint(self, parts: Mapping[str, Sequence[Pair]]) -> None:
        for side, language in enumerate(LANGUAGES):
            require_disjoint({name: sentence_keys(parts[name], side) for name in SPLITS}, language)

    def lines(self, units: Sequence[Pair], text: str) -> list[str]:
        side = LANGUAGES.index(text)
        return [pair.sides()[side] for pair in units]

    def sizes(self, units: Sequence[Pair], text: str) -> dict[str, int]:
        return {"sentences": len(units)}
