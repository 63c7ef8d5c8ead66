"""One sentence is held out of all languages or of none."""

import dataclasses
import itertools
import random

import pytest

from fairseq_knn.corpora.form import SPLITS
from fairseq_knn.corpora.many_to_one import HELD_OUT_SIZE, ManyToOne
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sentences import MIN_HELD_OUT_TOKENS, by_sentence
from fairseq_knn.corpora.splits import HELD_OUT

SIZES = {"large": 4000, "small": 400, "tiny": 120}
FORM = ManyToOne(tuple(SIZES), "eng")


@pytest.fixture
def pairs() -> list[Pair]:
    """Languages that say the same as far as they go, with sentences in common on either side, and short ones."""
    numbers = random.Random(1)
    pairs = []
    for language, size in SIZES.items():
        for number in range(size):
            english = f"{'Short' if number % 3 == 0 else 'This is a longer'} sentence{number}"
            source = f"{language} {number if number % 10 else numbers.randrange(size)}"
            pairs.append(Pair("", source, numbers.choice([english, english.upper(), f"{english} {{name}}."]), language))
    return numbers.sample(pairs, len(pairs))


def keys(pairs: list[Pair]) -> set[str]:
    return set(map(by_sentence, pairs))


def of(pairs: list[Pair], language: str) -> list[Pair]:
    return [pair for pair in pairs if pair.language == language]


def test_no_sentence_is_in_two_sets_of_whatever_languages(pairs: list[Pair]) -> None:
    parts = FORM.split(pairs, by_sentence)
    FORM.check_disjoint(parts)
    for one, other in itertools.combinations(SPLITS, 2):
        assert not keys(parts[one]) & keys(parts[other])
        for language in SIZES:
            sources = [{pair.source for pair in of(parts[name], language)} for name in (one, other)]
            assert not sources[0] & sources[1]


def test_every_language_has_its_share(pairs: list[Pair]) -> None:
    parts = FORM.split(pairs, by_sentence)
    for language, size in SIZES.items():
        long_enough = size * 2 // 3
        expected = min(HELD_OUT_SIZE, long_enough // 4)
        for name in HELD_OUT:
            held_out = of(parts[name], language)
            assert 0.8 * expected <= len(held_out) <= expected
            assert all(len(pair.target.split()) >= MIN_HELD_OUT_TOKENS for pair in held_out)
            assert len(keys(held_out)) == len(held_out)
        assert len(of(parts["train"], language)) >= 0.6 * size


def test_train_loses_nothing_but_what_is_held_out_for_some_language(pairs: list[Pair]) -> None:
    different = [dataclasses.replace(pair, source=str(number)) for number, pair in enumerate(pairs)]
    parts = FORM.split(different, by_sentence)
    held_out = keys(parts["test"]) | keys(parts["valid"])
    assert {pair.source for pair in different if by_sentence(pair) not in held_out} == {
        pair.source for pair in parts["train"]
    }


def test_clean_takes_languages_for_themselves() -> None:
    same = [Pair("", "Jedno  slovo", "one word", language) for language in ("small", "tiny", "small")]
    assert FORM.clean(same) == [Pair("", "Jedno slovo", "one word", language) for language in ("small", "tiny")]


def test_texts() -> None:
    pairs = [Pair("1", "a", "x", "large"), Pair("2", "b", "y", "tiny"), Pair("3", "c", "z", "large")]
    assert FORM.texts[:2] == ("large-eng.large", "large-eng.eng")
    assert FORM.languages == ["large", "eng", "small", "tiny"]
    assert FORM.lines(pairs, "large-eng.large") == ["a", "c"]
    assert FORM.lines(pairs, "large-eng.eng") == ["x", "z"]
    assert FORM.lines(pairs, "small-eng.eng") == []
    assert FORM.sizes(pairs, "large-eng.eng") == {"sentences": 2}


@pytest.mark.parametrize(
    ("leak", "text"),
    [
        (Pair("", "something else", "this IS: sentence one", "large"), "eng"),
        (Pair("", "Sentence ONE of tiny!", "something else", "tiny"), "tiny"),
        (Pair("", "sentence one of tiny", "something else", "large"), None),
    ],
)
@pytest.mark.parametrize("place", ["train", "valid"])
def test_leaks_are_found(leak: Pair, text: str | None, place: str) -> None:
    parts = {name: [Pair("", f"source in {name}", f"sentence in {name}", "small")] for name in SPLITS}
    parts["test"].append(Pair("", "sentence one of tiny", "this is sentence one", "tiny"))
    FORM.check_disjoint(parts)
    parts[place].append(leak)
    if text is None:
        FORM.check_disjoint(parts)  # the same words in two source languages give nothing away
    else:
        with pytest.raises(RuntimeError, match=rf"1 sentences of test\.{text} occur in {place}\.{text}"):
            FORM.check_disjoint(parts)
