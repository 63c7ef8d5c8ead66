"""Which groups of a corpus are held out."""

import hashlib
from collections.abc import Iterable, Mapping

HELD_OUT = ("test", "valid")


def assign(sizes: Mapping[str, int], most: int) -> dict[str, str]:
    """Choose the groups of the held-out sets; the rest is train.

    Groups are visited in the order of a hash of their names, which depends on neither the order of the units nor a
    random state, and fill test and valid evenly.

    Args:
        sizes: what each group could contribute.
        most: size of a held-out set; no more groups are added from 80% of it on.

    Returns:
        A name of :data:`HELD_OUT` for every group that is held out.
    """
    filled = dict.fromkeys(HELD_OUT, 0)
    places = {}
    for name in sorted(sizes, key=_stable_hash):
        emptier = min(filled, key=filled.__getitem__)
        # Half of it at most: figures from a single book would be about that book.
        if filled[emptier] < 0.8 * most and sizes[name] <= most - max(filled[emptier], most // 2):
            places[name] = emptier
            filled[emptier] += sizes[name]
    return places


def draw(names: Iterable[str], most: int) -> dict[str, str]:
    """Choose groups of a corpus that has groups in common with other ones.

    Which of the held-out sets a group could be in, and when its turn comes, depend on its name alone. So no group is
    in the test set of one corpus and in the valid set of another, and the sets of different corpora have as much in
    common as random ones can have.

    Args:
        names: of the groups.
        most: groups in each held-out set.

    Returns:
        A name of :data:`HELD_OUT` for every group that is held out.
    """
    filled = dict.fromkeys(HELD_OUT, 0)
    places = {}
    for name in sorted(names, key=_stable_hash):
        # The last digit says nothing about the place in the order.
        place = HELD_OUT[int(_stable_hash(name)[-1], 16) % 2]
        if filled[place] < most:
            places[name] = place
            filled[place] += 1
    return places


def _stable_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
