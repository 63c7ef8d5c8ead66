"""Sentence pairs of many languages and one: none has what is held out of another in its train."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from fairseq_knn.corpora.cleaning import clean
from fairseq_knn.corpora.form import SPLITS, Form, Parts
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sentences import can_be_held_out, require_disjoint, sentence_keys, unseen
from fairseq_knn.corpora.splits import HELD_OUT, draw

# Pairs in each held-out set of a language: at most this many, or this part of the sentences that are long enough.
HELD_OUT_SIZE = 300
HELD_OUT_PART = 1 / 4


class ManyToOne(Form[Pair]):
    """Every language has files of its own, named as fairseq-preprocess wants them: ``train.glg-eng.glg`` and ``.eng``.

    Texts like those of user interfaces say the same in all languages, so a sentence that is held out for one language
    would be learned from the other ones. Therefore what is held out for any language is in nobody's train. A language
    whose own set is full does without the pair: it is in none of its sets. A held-out pair whose source sentence also
    occurs in train is left out. Test comes before valid.

    Args:
        sources: the languages.
        target: the one they are translated to.
    """

    noun = "pairs"

    def __init__(self, sources: Sequence[str], target: str) -> None:
        self._sources, self._target = sources, target
        self._contents = {
            f"{source}-{target}.{language}": (source, side)
            for source in sources
            for side, language in enumerate((source, target))
        }
        self.texts = tuple(self._contents)

    def clean(self, units: Iterable[Pair]) -> list[Pair]:
        return list(itertools.chain.from_iterable(map(clean, self._by_source(units).values())))

    def split(self, units: Sequence[Pair], group: Callable[[Pair], str]) -> Parts[Pair]:
        """See :meth:`Form.split`; *group* has to look at the English sentence alone."""
        grouped = {source: [(pair, group(pair)) for pair in pairs] for source, pairs in self._by_source(units).items()}
        places = {
            source: _draw({name for pair, name in pairs if can_be_held_out(pair)}) for source, pairs in grouped.items()
        }
        held_out = set().union(*places.values())
        parts: Parts[Pair] = {name: [] for name in SPLITS}
        for source, pairs in grouped.items():
            train = [pair for pair, name in pairs if name not in held_out]
            parts["train"] += train
            taken = [sentence_keys(train, side) for side in (0, 1)]
            for place in HELD_OUT:
                drawn = (pair for pair, name in pairs if places[source].get(name) == place and can_be_held_out(pair))
                parts[place] += unseen(drawn, taken)
        return parts

    def check_disjoint(self, parts: Mapping[str, Sequence[Pair]]) -> None:
        require_disjoint({name: sentence_keys(parts[name], 1) for name in SPLITS}, self._target)
        by_source = {name: self._by_source(parts[name]) for name in SPLITS}
        for source in self._sources:
            require_disjoint({name: sentence_keys(by_source[name][source], 0) for name in SPLITS}, source)

    def lines(self, units: Sequence[Pair], text: str) -> list[str]:
        source, side = self._contents[text]
        return [pair.sides()[side] for pair in self._by_source(units)[source]]

    def sizes(self, units: Sequence[Pair], text: str) -> dict[str, int]:
        source, _ = self._contents[text]
        return {"sentences": len(self._by_source(units)[source])}

    def _by_source(self, units: Iterable[Pair]) -> dict[str, list[Pair]]:
        """The pairs of each language, in their order."""
        pairs: dict[str, list[Pair]] = {source: [] for source in self._sources}
        for pair in units:
            pairs[pair.language].append(pair)
        return pairs


def _draw(groups: set[str]) -> dict[str, str]:
    return draw(groups, min(HELD_OUT_SIZE, int(HELD_OUT_PART * len(groups))))
