"""Dealing cards: every one once before any comes again."""

import numpy as np
import pytest

from fairseq_knn.sampling.decks import Deck


def shuffled(size: int):
    return lambda turn: np.random.default_rng(turn).permutation(size)


def test_every_card_comes_once_in_a_pass() -> None:
    deck = Deck(shuffled(7))
    cards = [int(card) for _ in range(6) for card in deck.deal(5)]
    assert len(cards) == 30
    passes = [cards[first : first + 7] for first in range(0, 28, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1  # the order is new in every pass


@pytest.mark.parametrize("dealt", [0, 3, 7, 15])
def test_the_number_of_dealt_cards_is_the_whole_state(dealt: int) -> None:
    first = Deck(shuffled(7))
    first.deal(dealt)
    assert list(Deck(shuffled(7), dealt).deal(20)) == list(first.deal(20))


def test_more_cards_than_a_pass_has() -> None:
    cards = Deck(shuffled(3)).deal(10)
    assert [cards.count(card) for card in range(3)] in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


def test_going_back() -> None:
    deck = Deck(shuffled(5))
    first = list(deck.deal(8))
    deck.dealt = 0
    assert list(deck.deal(8)) == first
