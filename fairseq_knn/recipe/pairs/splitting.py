"""Train, valid and test of which none knows a sentence of another.

Pairs that have a side in common are connected ("Go on." has five translations, one of which also translates
"Continue."), and what is connected stays together. What is held out is drawn by numbers that the caller has computed
from a seed and the text of each pair, so it depends neither on the order of the pairs nor on a random state.
"""

from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

SPLITS = ("train", "valid", "test")
# Of a held-out set: figures from one sentence in all its versions would be about that sentence.
_LARGEST_SHARE = 20


def connected(source: Keys, target: Keys) -> Indices:
    """The connected components of pairs of which equal keys (n,) stand for the same sentence on that side.

    Returns:
        The number of each pair's component (n,), from 0 on, in an order that depends on the keys alone.
    """
    _, sources = np.unique(source, return_inverse=True)
    _, targets = np.unique(target, return_inverse=True)
    first_target = int(sources.max(initial=-1)) + 1
    parents = array("q", range(first_target + int(targets.max(initial=-1)) + 1))
    for one, other in zip(sources.tolist(), (targets + first_target).tolist(), strict=True):
        # Union-find with path halving; a sentence of lower number becomes the root.
        while parents[one] != one:
            parents[one] = one = parents[parents[one]]
        while parents[other] != other:
            parents[other] = other = parents[parents[other]]
        if one < other:
            parents[other] = one
        else:
            parents[one] = other
    roots = np.array(parents, dtype=np.int64)
    while not np.array_equal(higher := roots[roots], roots):
        roots = higher
    return np.unique(roots[sources], return_inverse=True)[1].astype(np.int64)


def split(source: Keys, target: Keys, draws: Keys, valid: int, test: int) -> dict[str, Indices]:
    """Divide pairs.

    Components are taken in the order of the sums of their draws, while they fit. Those of more than a twentieth of a
    held-out set go into train, unless the set cannot be filled without.

    Args:
        source, target: equal for the same sentence (n,).
        draws: of the pairs, uniform (n,).
        valid, test: pairs that are held out.

    Returns:
        For each split the indices of its pairs, in the order of their draws. Held-out sets are smaller than asked for
        only if the sizes of the components leave no choice or the first that come exhaust it.
    """
    components = connected(source, target)
    order = np.argsort(components, kind="stable")
    starts = np.flatnonzero(np.diff(components[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(draws[order], starts) if len(order) else draws[:0]
    turns = np.argsort(sums, kind="stable").tolist()

    wanted = {"test": test, "valid": valid}
    missing = dict(wanted)
    places = np.zeros(len(sizes), dtype=np.int8)
    for careful in (True, False):
        for component in turns:
            if not any(missing.values()):
                break
            size = int(sizes[component])
            for name, asked in wanted.items():
                most = min(missing[name], max(1, asked // _LARGEST_SHARE)) if careful else missing[name]
                if not places[component] and size <= most:
                    places[component] = SPLITS.index(name)
                    missing[name] -= size
    by_draw = np.argsort(draws, kind="stable")
    of_pairs = places[components[by_draw]]
    return {name: by_draw[of_pairs == number] for number, name in enumerate(SPLITS)}


def check_disjoint(parts: Mapping[str, Indices], source: Keys, target: Keys) -> None:
    """Make sure of it.

    Raises:
        AssertionError: two splits have a sentence in common.
    """
    for side, keys in (("source", source), ("target", target)):
        sentences = [np.unique(keys[parts[name]]) for name in SPLITS]
        if sum(map(len, sentences)) != len(np.unique(np.concatenate(sentences))):
            raise AssertionError(f"two splits have a {side} sentence in common")
