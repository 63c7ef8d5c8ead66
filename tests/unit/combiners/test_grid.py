"""The grid of `tune` against mixing itself."""

import math

import pytest
import torch

from fairseq_knn.combiners import VanillaCombiner, mix
from fairseq_knn.combiners.grid import VanillaGrid
from fairseq_knn.retrieval import Neighbours

KS, WEIGHTS, TEMPERATURES = [1, 3, 5], [0.1, 0.5, 0.95], [0.5, 10.0]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, Neighbours]:
    """Log-probabilities (n, V), targets (n,), and neighbours some of which are missing."""
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.randn(40, 12, generator=generator).log_softmax(-1)
    targets = torch.randint(12, (40,), generator=generator)
    distances = (torch.rand(40, 5, generator=generator) * 30).sort(-1).values
    ids = torch.arange(200).view(40, 5)
    values = torch.where(
        torch.rand(40, 5, generator=generator) < 0.4,
        targets[:, None],
        torch.randint(12, (40, 5), generator=generator),
    )
    ids[3, 2:], distances[3, 2:] = -1, torch.inf
    ids[4], distances[4] = -1, torch.inf
    return log_probs, targets, Neighbours(distances, ids, values)


def test_every_point_is_the_loss_of_mixing_with_that_setting(
    batch: tuple[torch.Tensor, torch.Tensor, Neighbours],
) -> None:
    log_probs, targets, neighbours = batch
    grid = VanillaGrid(KS, WEIGHTS, TEMPERATURES)
    model = log_probs.gather(-1, targets[:, None]).squeeze(-1)
    matches = neighbours.found & (neighbours.values == targets[:, None])
    for rows in (slice(0, 25), slice(25, 40)):
        grid.add(model[rows], log_probs.amax(-1)[rows], neighbours.distances[rows], matches[rows])
    points = grid.points()
    assert len(points) == len(KS) * len(WEIGHTS) * len(TEMPERATURES)
    assert [p.loss for p in points] == sorted(p.loss for p in points)
    for point in points:
        nearest = Neighbours(*(t[:, : point.k] for t in (neighbours.distances, neighbours.ids, neighbours.values)))
        mixture = VanillaCombiner(point.weight, point.temperature).mixture(log_probs, nearest, log_probs)
        mixed = mix(log_probs.clone(), nearest.values, mixture)
        expected = -mixed.gather(-1, targets[:, None]).mean().item()
        assert point.loss == pytest.approx(expected, abs=1e-5)
        assert point.perplexity == pytest.approx(math.exp(expected), rel=1e-4)
    assert grid.model_loss == pytest.approx(-model.mean().item(), abs=1e-6)
    assert grid.tokens == 40


def test_skipping_is_the_loss_with_the_model_alone_where_it_is_sure(
    batch: tuple[torch.Tensor, torch.Tensor, Neighbours],
) -> None:
    log_probs, targets, neighbours = batch
    log_probs = (4 * log_probs).log_softmax(-1)
    model, highest = log_probs.gather(-1, targets[:, None]).squeeze(-1), log_probs.amax(-1)
    matches = neighbours.found & (neighbours.values == targets[:, None])
    grid = VanillaGrid(KS, WEIGHTS, TEMPERATURES)
    for rows in (slice(0, 25), slice(25, 40)):
        grid.add(model[rows], highest[rows], neighbours.distances[rows], matches[rows])
    for point in grid.points()[:5]:
        for skip in grid.skipping(point):
            sure = highest >= math.log(skip.threshold)
            parts = VanillaGrid([point.k], [point.weight], [point.temperature])
            parts.add(model[~sure], highest[~sure], neighbours.distances[~sure], matches[~sure])
            expected = (parts.points()[0].loss * parts.tokens - model[sure].sum().item()) / 40
            assert skip.loss == pytest.approx(expected, abs=1e-5)
            assert skip.skipped == pytest.approx(sure.float().mean().item())
    shares = [skip.skipped for skip in grid.skipping(grid.points()[0])]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1


def test_far_neighbours_give_no_nan() -> None:
    grid = VanillaGrid([1, 2], [0.5], [0.1])
    distances = torch.tensor([[0.0, 1e5], [1e5, 2e5]])
    grid.add(
        torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.0]), distances, torch.tensor([[False, True], [False, False]])
    )
    assert all(math.isfinite(point.loss) for point in grid.points())


def test_tiny_temperatures_give_no_nan() -> None:
    grid = VanillaGrid([1, 2], [0.5], [1e-38, 10.0])
    distances = torch.tensor([[30.0, 40.0]])
    grid.add(torch.tensor([-1.0]), torch.tensor([-0.5]), distances, torch.tensor([[True, False]]))
    assert all(math.isfinite(point.loss) for point in grid.points())
    assert all(math.isfinite(skip.loss) for skip in grid.skipping(grid.points()[0]))
