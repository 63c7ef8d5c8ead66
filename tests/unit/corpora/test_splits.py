"""No sentence in two sets, groups undivided, the same result whatever the order."""

import random

import pytest

from fairseq_knn.corpora.form import SPLITS
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.parallel import HELD_OUT_SIZE, Parallel
from fairseq_knn.corpora.sentences import MIN_HELD_OUT_TOKENS, by_sentence
from fairseq_knn.corpora.splits import HELD_OUT, draw

split, check_disjoint = Parallel().split, Parallel().check_disjoint


def letter(pair: Pair) -> str:
    return pair.key[0]


def category(pair: Pair) -> str:
    return pair.key[:3]


@pytest.fixture
def pairs() -> list[Pair]:
    """Pairs with many sentences in common, on either side, in other cases and with other punctuation."""
    numbers = random.Random(1)
    pairs = []
    for number in range(6000):
        german, english = numbers.randrange(3000), numbers.randrange(3000)
        words = "x " * numbers.randrange(6)
        code = f"{'ABCDEFGHIJKLMNOPQRST'[number // 300]}{number // 10 % 30:02}{number % 10}"
        pairs.append(
            Pair(
                code,
                f"Satz {words}auf deutsch {german}{numbers.choice(['', '.', ' {name}'])}",
                numbers.choice([str.upper, str.lower])(f"sentence {words}in English {english}"),
            )
        )
    return pairs


@pytest.mark.parametrize("group", [by_sentence, category, letter])
def test_no_sentence_is_in_two_sets(pairs: list[Pair], group) -> None:
    parts = split(pairs, group)
    check_disjoint(parts)
    for side in (0, 1):
        sets = [{pair.sides()[side].casefold() for pair in parts[name]} for name in SPLITS]
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]
    assert all(parts[name] for name in SPLITS)


@pytest.mark.parametrize("group", [by_sentence, category, letter])
def test_groups_are_not_divided(pairs: list[Pair], group) -> None:
    parts = split(pairs, group)
    groups = [set(map(group, parts[name])) for name in SPLITS]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_train_loses_nothing_but_the_held_out_groups(pairs: list[Pair]) -> None:
    parts = split(pairs, category)
    held_out = {category(pair) for name in HELD_OUT for pair in parts[name]}
    assert [pair for pair in pairs if category(pair) not in held_out] == parts["train"]


def test_held_out_sentences_are_long_enough_and_different(pairs: list[Pair]) -> None:
    parts = split(pairs, by_sentence)
    for name in HELD_OUT:
        assert all(len(pair.target.split()) >= MIN_HELD_OUT_TOKENS for pair in parts[name])
        for side in (0, 1):
            texts = [pair.sides()[side].casefold() for pair in parts[name]]
            assert len(set(texts)) == len(texts)


def test_sizes() -> None:
    pairs = [Pair(str(i), f"Dies ist Satz {i}", f"this is sentence {i}") for i in range(30_000)]
    parts = split(pairs, by_sentence)
    assert {name: len(parts[name]) for name in HELD_OUT} == {"test": 800, "valid": 800}
    few = split(pairs[:200], by_sentence)
    assert {name: len(few[name]) for name in SPLITS} == {"train": 168, "test": 16, "valid": 16}


def test_a_group_as_large_as_half_a_set_stays_in_train() -> None:
    pairs = [Pair("A", f"Grosse Gruppe Satz {i}", f"large group sentence {i}") for i in range(20_000)]
    for number in range(40):
        pairs += [
            Pair(f"b{number}", f"Kleine Gruppe {number} Satz {i}", f"small group {number} sentence {i}")
            for i in range(90)
        ]
    parts = split(pairs, lambda pair: pair.key)
    assert {pair.key for pair in parts["train"]} >= {"A"}
    for name in HELD_OUT:
        assert 0.5 * HELD_OUT_SIZE <= len(parts[name]) <= HELD_OUT_SIZE


def test_independent_of_the_order(pairs: list[Pair]) -> None:
    shuffled = random.Random(2).sample(pairs, len(pairs))
    one, other = split(pairs, category), split(shuffled, category)
    assert set(one["train"]) == set(other["train"])
    assert {category(pair) for pair in one["test"]} == {category(pair) for pair in other["test"]}


def test_places_do_not_change_between_versions() -> None:
    """A change here changes every published figure: raise RECIPE and say so in the changelog."""
    pairs = [Pair(str(i), f"Dies ist Satz {i}", f"this is sentence {i}") for i in range(100)]
    parts = split(pairs, by_sentence)
    assert [pair.key for pair in parts["test"]] == ["12", "16", "36", "43", "63", "75", "76", "94"]


@pytest.mark.parametrize(
    "leak", [Pair("", "dies IST satz eins!", "something else"), Pair("", "etwas anderes", "This is: sentence one")]
)
@pytest.mark.parametrize("place", ["train", "valid"])
def test_a_leak_is_found_on_either_side(leak: Pair, place: str) -> None:
    parts = {name: [Pair("", f"Satz in {name}", f"sentence in {name}")] for name in SPLITS}
    parts["test"].append(Pair("", "Dies ist Satz eins", "this is sentence one"))
    check_disjoint(parts)
    parts[place].append(leak)
    with pytest.raises(RuntimeError, match=rf"1 sentences of test\.(de|en) occur in {place}"):
        check_disjoint(parts)


def test_drawn_from_two_collections_a_name_is_in_one_set() -> None:
    few, many = {str(i) for i in range(400)}, {str(i) for i in range(200, 4000)}
    one, other = draw(few, 50), draw(many, 300)
    for places, size in ((one, 50), (other, 300)):
        assert {place: list(places.values()).count(place) for place in HELD_OUT} == {"test": size, "valid": size}
    common = one.keys() & other.keys()
    assert len(common) > 5
    assert all(one[name] == other[name] for name in common)


def test_drawing_leaves_to_the_smaller_collection_what_it_can() -> None:
    """What a large collection draws of the names of a small one, the small one draws too."""
    few, many = {str(i) for i in range(400)}, {str(i) for i in range(40_000)}
    assert few & draw(many, 300).keys() <= draw(few, 100).keys()


def test_drawn_names_do_not_change_between_versions() -> None:
    places = draw(map(str, range(40)), 3)
    assert places == {"39": "valid", "9": "valid", "8": "valid", "29": "test", "13": "test", "4": "test"}
