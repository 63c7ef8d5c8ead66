"""The student's sentences are drawn each on its own, by nothing but their number."""

import math

import numpy as np
import pytest
import torch

from fairseq_knn.imitation.drawing import student_sentences

N = 10_000
ALL = torch.arange(N)


@pytest.mark.parametrize("beta", [0.3, 0.0707107, 0.5, 0.995])
def test_share_of_the_student(beta: float) -> None:
    for seed in (1, 2, 333):
        share = student_sentences(ALL, beta, seed, update=7).double().mean().item()
        assert abs(share - (1 - beta)) < 4 * math.sqrt(beta * (1 - beta) / N)


def test_certain_is_certain() -> None:
    for update in range(50):
        assert not student_sentences(ALL, 1.0, 1, update).any()
        assert student_sentences(ALL, 0.0, 1, update).all()


def test_a_sentence_is_drawn_alike_in_every_batch() -> None:
    whole = student_sentences(ALL, 0.4, 5, 17)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    assert torch.equal(student_sentences(ALL[order], 0.4, 5, 17), whole[order])
    for some in (ALL[3:4], ALL[::7], ALL[[9, 9, 2]], ALL[:0]):
        drawn = student_sentences(some, 0.4, 5, 17)
        assert drawn.dtype == torch.bool
        assert torch.equal(drawn, whole[some])


def test_the_same_sentences_whatever_machine() -> None:
    drawn = student_sentences(torch.arange(20), 0.5, 1, 1)
    assert drawn.nonzero().flatten().tolist() == [5, 6, 9, 10, 11, 12, 19]


@pytest.mark.parametrize("beta", [0.3, 0.5])
def test_updates_seeds_and_sentences_are_independent(beta: float) -> None:
    """Of independent draws, the number that two have in common is binomial: its standardised square is chi-square."""
    draws = [student_sentences(ALL, beta, seed, update) for seed in (0, 1, 2**40) for update in (0, 1, 2, 1000)]
    draws.append(draws[0].roll(1))  # a sentence and the next one
    share = (1 - beta) ** 2
    squares = [
        ((one & other).sum().item() - N * share) ** 2 / (N * share * (1 - share))
        for number, one in enumerate(draws)
        for other in draws[:number]
    ]
    assert max(squares) < 16  # 4 sigma
    assert 0.6 < np.mean(squares) < 1.5


def test_a_sentence_changes_sides_between_updates() -> None:
    counts = torch.stack([student_sentences(ALL[:200], 0.5, 3, update) for update in range(400)]).sum(dim=0).double()
    chi_square = ((counts - 200) ** 2 / 100).sum().item()
    assert abs(chi_square - 200) < 4 * math.sqrt(2 * 200)


def test_seeds_may_be_negative_and_large() -> None:
    drawn = [student_sentences(ALL, 0.5, seed, 1) for seed in (-1, 2**63, 0)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_random_generators_stay_as_they_are() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    theirs, ours = torch.get_rng_state(), np.random.get_state()[1]
    student_sentences(ALL, 0.5, 1, 1)
    assert torch.equal(torch.get_rng_state(), theirs)
    np.testing.assert_array_equal(np.random.get_state()[1], ours)
