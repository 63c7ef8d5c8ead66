"""Which groups of a corpus are held out."""

import hashlib
from collections.abc import Mapping

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


def _stable_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
