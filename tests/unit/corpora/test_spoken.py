"""What is tested in speech is in no text that is learned from, either."""

import random

import pytest

from fairseq_knn.corpora.form import SPLITS
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sentences import by_sentence
from fairseq_knn.corpora.splits import HELD_OUT
from fairseq_knn.corpora.spoken import HELD_OUT_SIZE, Spoken, speakable

FORM = Spoken("ces", "eng", voice="cs")


def word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture
def pairs() -> list[Pair]:
    """Sentences that can be spoken, one in four that cannot, and some that share a side with others."""
    numbers = random.Random(1)
    pairs = []
    for number in range(2000):
        sign = " {name}" if number % 4 == 0 else ""
        source = f"tohle je věta {word(number if number % 10 else numbers.randrange(2000))}{sign}"
        pairs.append(Pair("", source, f"this is sentence {word(number)}{sign}"))
    return pairs


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("Zapnout světlo", "Turn on light", True),
        ("Co je to?", "What's that?", True),
        ("Bílo-modrý kód, prosím.", "White-blue code, please!", True),
        ("Světlo", "Turn on light", False),
        ("Zapnout světlo", "Light", False),
        ("Port 80", "The port", False),
        ("Zapnout {name}", "Turn on it", False),
        ("Zapnout světlo", "Turn on_off", False),
        ("Zapnout světlo", " ".join(["word"] * 9), False),
        ("Zapnout světlo", " ".join(["word"] * 8), True),
    ],
)
def test_speakable(source: str, target: str, expected: bool) -> None:
    assert speakable(Pair("", source, target)) == expected


def test_held_out_pairs_can_be_spoken_and_are_learned_from_nowhere(pairs: list[Pair]) -> None:
    parts = FORM.split(pairs, by_sentence)
    FORM.check_disjoint(parts)
    for name in HELD_OUT:
        assert 0.5 * 200 < len(parts[name]) <= min(HELD_OUT_SIZE, 200)
        assert all(map(speakable, parts[name]))
        for other in set(SPLITS) - {name}:
            for side in (0, 1):
                assert not {pair.sides()[side] for pair in parts[name]} & {pair.sides()[side] for pair in parts[other]}
    assert not all(map(speakable, parts["train"]))  # more text than speech


def test_dialogue_is_tested_if_no_set_has_it(pairs: list[Pair]) -> None:
    parts = FORM.split(pairs, by_sentence)
    new = Pair("", "ryba plave pod vodou", "a fish swims under water")
    known = [
        Pair("", new.source, parts["train"][1].target),
        Pair("", parts["valid"][0].source, new.target),
        Pair("", "ryba", "a fish that swims"),
    ]
    assert FORM._acted([*known, new], parts) == [new]
