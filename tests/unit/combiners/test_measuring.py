"""Figures of what a combiner does add up over batches."""

import pytest
import torch

from fairseq_knn.combiners import Mixture
from fairseq_knn.combiners.measuring import add, means, measure
from fairseq_knn.retrieval import Neighbours

IDS = torch.tensor([[4, 5], [6, -1], [-1, -1]])
VALUES = torch.tensor([[7, 8], [9, 0], [0, 0]])  # 0 where there is none, which must not count as found
NEIGHBOURS = Neighbours(torch.ones(3, 2), IDS, VALUES)
WEIGHT = torch.tensor([[0.9], [0.2], [0.0]], requires_grad=True)
MIXTURE = Mixture(torch.zeros(3, 2), WEIGHT, {"bandwidth": torch.tensor([[2.0], [4.0], [torch.nan]])})


def test_positions_without_neighbours_do_not_count() -> None:
    sums = measure(MIXTURE, NEIGHBOURS, torch.tensor([8, 7, 0]))
    assert not any(value.requires_grad for value in sums.values())
    assert means(sums) == pytest.approx({"lambda": 0.55, "lambda_high": 0.5, "bandwidth": 3.0, "hit": 0.5})


def test_batches_add_up_and_hits_count_where_the_target_is_known() -> None:
    sums: dict[str, torch.Tensor] = {}
    add(sums, measure(MIXTURE, NEIGHBOURS))
    assert "hit" not in means(sums)
    add(sums, measure(MIXTURE, NEIGHBOURS, torch.tensor([8, 9, 0])))
    assert float(sums["positions"]) == 4
    assert means(sums) == pytest.approx({"lambda": 0.55, "lambda_high": 0.5, "bandwidth": 3.0, "hit": 1.0})


def test_nothing_has_no_means() -> None:
    assert means({}) == {}
    none = Neighbours(torch.ones(3, 2), torch.full((3, 2), -1), VALUES)
    assert means(measure(MIXTURE, none, torch.tensor([8, 9, 0]))) == {}
    assert means({"positions": 0.0, "targets": 0.0, "lambda": 0.0, "hit": 0.0}) == {}
