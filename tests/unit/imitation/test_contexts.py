"""Decoder inputs made of references and hypotheses."""

import pytest
import torch
from torch import Tensor

from fairseq_knn.imitation.contexts import context_of, contexts, counted

EOS = 2


@pytest.mark.parametrize(
    ("hypothesis", "expected"),
    [
        ([5, 6, EOS], [EOS, 5, 6]),
        ([5, 6, 7], [EOS, 5, 6, 7]),  # cut off for its length
        ([EOS], [EOS]),
        ([], [EOS]),
        ([5], [EOS, 5]),
    ],
)
def test_context_of_a_hypothesis(hypothesis: list[int], expected: list[int]) -> None:
    found = context_of(torch.tensor(hypothesis, dtype=torch.int64), EOS)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


def reference(pad: int) -> Tensor:
    return torch.tensor(
        [
            [EOS, 4, 5, 6, pad, pad],
            [EOS, 7, pad, pad, pad, pad],
            [EOS, 8, 9, 10, 11, pad],
        ]
    )


@pytest.mark.parametrize("pad", [1, 0, 13])
def test_rows_are_mixed(pad: int) -> None:
    before = reference(pad)
    found = contexts(before, {1: torch.tensor([20, 21, EOS])}, pad, EOS)
    assert found.tolist() == [[EOS, 4, 5, 6, pad], [EOS, 20, 21, pad, pad], [EOS, 8, 9, 10, 11]]
    assert torch.equal(before, reference(pad))  # the batch is used again


@pytest.mark.parametrize("pad", [1, 0, 13])
def test_a_hypothesis_may_be_the_longest_or_end_the_longest(pad: int) -> None:
    longer = torch.arange(20, 27)
    found = contexts(reference(pad), {0: longer, 2: torch.tensor([EOS])}, pad, EOS)
    assert found.tolist() == [
        [EOS, *longer.tolist()],
        [EOS, 7, *[pad] * 6],
        [EOS, *[pad] * 7],
    ]
    shorter = contexts(reference(pad), {2: torch.tensor([EOS])}, pad, EOS)
    assert shorter.tolist() == [[EOS, 4, 5, 6], [EOS, 7, pad, pad], [EOS, pad, pad, pad]]


def test_without_hypotheses_only_empty_columns_go() -> None:
    assert torch.equal(contexts(reference(1), {}, 1, EOS), reference(1)[:, :5])


def test_without_references() -> None:
    found = contexts(reference(1), dict(enumerate(torch.tensor([[5, 6, EOS]] * 3))), 1, EOS)
    assert found.tolist() == [[EOS, 5, 6]] * 3


@pytest.mark.parametrize("pad", [1, 0])
def test_what_counts(pad: int) -> None:
    assert counted(reference(pad), pad).sum(dim=1).tolist() == [4, 2, 5]  # EOS as an input counts, as padding does not
    left_out = counted(reference(pad), pad, ignore_prefix=3)
    assert left_out.tolist() == [
        [False, False, False, True, False, False],
        [False] * 6,
        [False, False, False, True, True, False],
    ]


def test_every_hypothesis_counts_as_often_as_it_has_tokens() -> None:
    """So its EOS is predicted exactly once, and never if it was cut off."""
    hypotheses = {0: torch.tensor([5, 6, EOS]), 1: torch.tensor([5, 6, 7]), 2: torch.tensor([EOS])}
    found = contexts(reference(1), hypotheses, 1, EOS)
    assert counted(found, 1).sum(dim=1).tolist() == [3, 4, 1]
