"""Sets without a sentence in common."""

import random
from itertools import pairwise

import numpy as np
import pytest

from fairseq_knn.recipe.pairs.splitting import SPLITS, check_disjoint, connected, split


def keys(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def slow_components(source: list[int], target: list[int]) -> set[frozenset[int]]:
    groups = [{n} for n in range(len(source))]
    for one in range(len(source)):
        for other in range(one):
            if source[one] == source[other] or target[one] == target[other]:
                joined = groups[one] | groups[other]
                for member in joined:
                    groups[member] = joined
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("sentences", [5, 40, 400])
def test_components_are_those_of_a_search_of_all_pairs_of_pairs(sentences: int) -> None:
    rng = random.Random(sentences)
    source, target = ([rng.randrange(sentences) for _ in range(200)] for _ in range(2))
    found = connected(keys(source), keys(target))
    groups = {frozenset(np.flatnonzero(found == number).tolist()) for number in range(found.max() + 1)}
    assert groups == slow_components(source, target)


def test_long_chains_are_one_component() -> None:
    n = 20_000
    source, target = keys([i // 2 for i in range(n)]), keys([(i + 1) // 2 for i in range(n)])
    order = np.random.default_rng(1).permutation(n)
    assert set(connected(source[order], target[order]).tolist()) == {0}


def test_same_number_on_the_other_side_is_another_sentence() -> None:
    assert len(set(connected(keys([1, 2]), keys([2, 1])).tolist())) == 2


def test_held_out_sets_have_the_size_asked_for_and_share_no_sentence() -> None:
    rng = random.Random(0)
    source, target = (keys([rng.randrange(3000) for _ in range(2000)]) for _ in range(2))
    source[:1000] += np.uint64(5000)
    source[:1000] = np.arange(5000, 6000)
    target[:1000] = np.arange(5000, 6000)
    parts = split(source, target, draws(2000), valid=150, test=70)
    assert {name: len(part) for name, part in parts.items()} == {"train": 1780, "valid": 150, "test": 70}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(2000))
    for side in (source, target):
        of = [set(side[parts[name]].tolist()) for name in SPLITS]
        assert not of[0] & of[1]
        assert not of[0] & of[2]
        assert not of[1] & of[2]


def test_parts_are_in_the_order_of_the_draws() -> None:
    numbers = draws(500)
    parts = split(keys(list(range(500))), keys(list(range(500))), numbers, 50, 50)
    for part in parts.values():
        assert all(one < other for one, other in pairwise(numbers[part].tolist()))


def test_what_is_held_out_does_not_depend_on_the_order_of_the_pairs() -> None:
    rng = random.Random(0)
    source, target = (keys([rng.randrange(700) for _ in range(600)]) for _ in range(2))
    numbers, order = draws(600), np.random.default_rng(5).permutation(600)
    parts = split(source, target, numbers, 20, 20)
    again = split(source[order], target[order], numbers[order], 20, 20)
    assert all(np.array_equal(numbers[parts[name]], numbers[order][again[name]]) for name in SPLITS)
    assert not np.array_equal(split(source, target, draws(600, 1), 20, 20)["test"], parts["test"])


def test_large_components_stay_in_train_while_there_are_others() -> None:
    source = keys([0] * 30 + list(range(1, 171)))
    for seed in range(10):
        parts = split(source, keys(list(range(200))), draws(200, seed), 40, 40)
        assert set(range(30)) <= set(parts["train"].tolist())
        assert len(parts["valid"]) == len(parts["test"]) == 40


def test_larger_components_fill_a_set_that_has_no_other() -> None:
    source = keys([i // 4 for i in range(100)])  # all of four pairs
    parts = split(source, keys(list(range(100))), draws(100), 10, 8)
    assert (len(parts["valid"]), len(parts["test"])) == (8, 8)


def test_nothing_can_be_held_out_of_one_component() -> None:
    parts = split(keys([0] * 100), keys(list(range(100))), draws(100), 10, 10)
    assert [len(parts[name]) for name in SPLITS] == [100, 0, 0]


def test_common_sentence_is_seen() -> None:
    parts = {name: np.array([number]) for number, name in enumerate(SPLITS)}
    check_disjoint(parts, keys([1, 2, 3]), keys([1, 2, 3]))
    with pytest.raises(AssertionError, match="target sentence"):
        check_disjoint(parts, keys([1, 2, 3]), keys([1, 2, 1]))
