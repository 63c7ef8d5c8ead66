"""Train, valid and test, without a sentence of one in another."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fairseq_knn.corpora.cleaning import comparison_key
from fairseq_knn.corpora.pair import LANGUAGES, SPLITS, Pair

HELD_OUT = ("test", "valid")
# Pairs in each held-out set: at most this many, and no more are added from 80% of it on.
HELD_OUT_SIZE = 1000
# Held-out English sentences have at least this many words. Shorter ones measure vocabulary rather than
# translation, and are likely to occur in any other text.
MIN_HELD_OUT_TOKENS = 4

Split = dict[str, list[Pair]]


@dataclass(frozen=True)
class SplitRule:
    """What stays together when a corpus is divided.

    Attributes:
        name: value of ``--split``.
        description: one sentence for help texts and for corpus.json.
        group: name of the group a pair belongs to; a group is never divided.
    """

    name: str
    description: str
    group: Callable[[Pair], str]


def by_sentence(pair: Pair) -> str:
    """Group of the rules called ``random``: all pairs with the same English sentence."""
    return comparison_key(pair.target)


def split(pairs: Sequence[Pair], group: Callable[[Pair], str]) -> Split:
    """Divide pairs into train, valid and test.

    Groups are visited in the order of a hash of their names, which depends on neither the order of the
    pairs nor a random state, and fill test and valid evenly; the rest is train. A held-out pair one of
    whose sides also occurs in train is left out, and so is a short one. Test comes before valid: what
    both would have is left out of valid.

    Args:
        pairs: clean pairs; their order is kept inside each set.
        group: of a pair, see :class:`SplitRule`.

    Returns:
        The pairs of each name in :data:`SPLITS`.
    """
    places = _assign(Counter(group(pair) for pair in pairs if _can_be_held_out(pair)), len(pairs) // 10)
    parts: Split = {name: [] for name in SPLITS}
    for pair in pairs:
        parts[places.get(group(pair), "train")].append(pair)
    taken = [_keys(parts["train"], side) for side in range(len(LANGUAGES))]
    for name in HELD_OUT:
        parts[name] = _unseen(filter(_can_be_held_out, parts[name]), taken)
    return parts


def check_disjoint(parts: Mapping[str, Sequence[Pair]]) -> None:
    """Make sure that no sentence of one set occurs in another one, on either side.

    Raises:
        RuntimeError: one does; figures on such a split would be worthless.
    """
    for side, language in enumerate(LANGUAGES):
        keys = {name: _keys(parts[name], side) for name in SPLITS}
        for one, other in (("test", "train"), ("valid", "train"), ("test", "valid")):
            if shared := keys[one] & keys[other]:
                raise RuntimeError(
                    f"{len(shared)} sentences of {one}.{language} occur in {other}.{language}, "
                    f"the first: {min(shared)!r}"
                )


def _assign(sizes: Mapping[str, int], tenth: int) -> dict[str, str]:
    """Places of the held-out groups; *sizes* counts what each could contribute."""
    most = min(HELD_OUT_SIZE, tenth)
    filled = dict.fromkeys(HELD_OUT, 0)
    places = {}
    for name in sorted(sizes, key=_stable_hash):
        emptier = min(filled, key=filled.__getitem__)
        # Half of it at most: figures from a single book would be about that book.
        if filled[emptier] < 0.8 * most and sizes[name] <= most - max(filled[emptier], most // 2):
            places[name] = emptier
            filled[emptier] += sizes[name]
    return places


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


def _stable_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
