"""What forms made of sentence pairs have in common when they hold some out."""

from collections.abc import Iterable, Mapping, Sequence

from fairseq_knn.corpora.cleaning import comparison_key
from fairseq_knn.corpora.pair import Pair

# Held-out English sentences have at least this many words. Shorter ones measure vocabulary rather than
# translation, and are likely to occur in any other text.
MIN_HELD_OUT_TOKENS = 4


def by_sentence(pair: Pair) -> str:
    """Group of the rules called ``random``: all pairs with the same English sentence."""
    return comparison_key(pair.target)


def can_be_held_out(pair: Pair) -> bool:
    """Whether a pair is long enough for test or valid."""
    return len(pair.target.split()) >= MIN_HELD_OUT_TOKENS


def sentence_keys(pairs: Iterable[Pair], side: int) -> set[str]:
    """What the sentences of one side, 0 or 1 of :meth:`Pair.sides`, are compared by."""
    return {comparison_key(pair.sides()[side]) for pair in pairs}


def unseen(pairs: Iterable[Pair], taken: Sequence[set[str]]) -> list[Pair]:
    """Those pairs neither of whose sides is taken, which takes them.

    Args:
        pairs: in the order they are served.
        taken: keys of either side; those of the pairs returned are added.
    """
    kept = []
    for pair in pairs:
        keys = [comparison_key(text) for text in pair.sides()]
        if not any(key in side for key, side in zip(keys, taken, strict=True)):
            kept.append(pair)
            for key, side in zip(keys, taken, strict=True):
                side.add(key)
    return kept


def require_disjoint(keys: Mapping[str, set[str]], text: str) -> None:
    """Make sure that train, valid and test have no sentence in common.

    Args:
        keys: of the sentences of each split.
        text: what they are sentences of, for the message.

    Raises:
        RuntimeError: they have one.
    """
    for one, other in (("test", "train"), ("valid", "train"), ("test", "valid")):
        if shared := keys[one] & keys[other]:
            raise RuntimeError(
                f"{len(shared)} sentences of {one}.{text} occur in {other}.{text}, the first: {min(shared)!r}"
            )
