"""Sentence pairs: train, valid and test without a sentence of one in another."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from fairseq_knn.corpora.cleaning import clean, comparison_key
from fairseq_knn.corpora.form import SPLITS, Form, Parts
from fairseq_knn.corpora.pair import LANGUAGES, Pair
from fairseq_knn.corpora.splits import HELD_OUT, assign

# Pairs in each held-out set: at most this many, or a tenth of all.
HELD_OUT_SIZE = 1000
# Held-out English sentences have at least this many words. Shorter ones measure vocabulary rather than
# translation, and are likely to occur in any other text.
MIN_HELD_OUT_TOKENS = 4


def by_sentence(pair: Pair) -> str:
    """Group of the rules called ``random``: all pairs with the same English sentence."""
    return comparison_key(pair.target)


class Parallel(Form[Pair]):
    """Pairs are aligned lines of two files.

    A held-out pair one of whose sides also occurs in train is left out, and so is a short one. Test comes
    before valid: what both would have is left out of valid.
    """

    languages = LANGUAGES
    noun = "pairs"

    def clean(self, units: Iterable[Pair]) -> list[Pair]:
        return list(clean(units))

    def split(self, units: Sequence[Pair], group: Callable[[Pair], str]) -> Parts[Pair]:
        most = min(HELD_OUT_SIZE, len(units) // 10)
        places = assign(Counter(group(pair) for pair in units if _can_be_held_out(pair)), most)
        parts: Parts[Pair] = {name: [] for name in SPLITS}
        for pair in units:
            parts[places.get(group(pair), "train")].append(pair)
        taken = [_keys(parts["train"], side) for side in range(len(LANGUAGES))]
        for name in HELD_OUT:
            parts[name] = _unseen(filter(_can_be_held_out, parts[name]), taken)
        return parts

    def check_disjoint(self, parts: Mapping[str, Sequence[Pair]]) -> None:
        for side, language in enumerate(LANGUAGES):
            keys = {name: _keys(parts[name], side) for name in SPLITS}
            for one, other in (("test", "train"), ("valid", "train"), ("test", "valid")):
                if shared := keys[one] & keys[other]:
                    raise RuntimeError(
                        f"{len(shared)} sentences of {one}.{language} occur in {other}.{language}, "
                        f"the first: {min(shared)!r}"
                    )

    def lines(self, units: Sequence[Pair], language: str) -> list[str]:
        side = LANGUAGES.index(language)
        return [pair.sides()[side] for pair in units]

    def sizes(self, units: Sequence[Pair]) -> dict[str, int]:
        return {"sentences": len(units)}


def _unseen(pairs: Iterable[Pair], taken: Sequence[set[str]]) -> list[Pair]:
    """Those pairs neither of whose sides is taken, which takes them."""
    unseen = []
    for pair in pairs:
        keys = [comparison_key(text) for text in pair.sides()]
        if not any(key in side for key, side in zip(keys, taken, strict=True)):
            unseen.append(pair)
            for key, side in zip(keys, taken, strict=True):
                side.add(key)
    return unseen


def _keys(pairs: Iterable[Pair], side: int) -> set[str]:
    return {comparison_key(pair.sides()[side]) for pair in pairs}


def _can_be_held_out(pair: Pair) -> bool:
    return len(pair.target.split()) >= MIN_HELD_OUT_TOKENS
