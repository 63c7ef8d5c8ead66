"""Gradients and their similarity, against flattened vectors and by hand."""

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.displacement import displaced
from fairseq_knn.sampling.gradients import (
    gradient,
    parameters_of,
    similarity,
    similarity_matrix,
    weighted_sum,
)
from fairseq_knn.sampling.utility import row_weights


def vectors(*values: float) -> list[Tensor]:
    return [torch.tensor(values, dtype=torch.float64)]


class Shared(nn.Module):
    """Two layers with one weight, a layer that is not used, dropout and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.second(self.norm(torch.tanh(self.first(x)))))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [((1, 0), (1, 1), 0.70710678), ((1, 2), (2, 4), 1.0), ((1, 2), (-1, -2), -1.0), ((0, 0), (1, 1), 0.0)],
)
def test_cosine(left: tuple[float, float], right: tuple[float, float], expected: float) -> None:
    assert float(similarity(vectors(*left), vectors(*right))) == pytest.approx(expected, abs=1e-8)


def test_cosine_of_flattened_gradients() -> None:
    torch.manual_seed(1)
    one, other = ([torch.randn(3, 4), torch.randn(5), torch.randn(())] for _ in range(2))
    flat = [torch.cat([part.flatten() for part in parts]).double() for parts in (one, other)]
    expected = torch.cosine_similarity(*flat, dim=0)
    torch.testing.assert_close(similarity(one, other), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(similarity(one, other, "dot_prod"), flat[0] @ flat[1], rtol=1e-5, atol=1e-6)


def test_the_size_of_the_losses() -> None:
    one, other = vectors(1, 2, 3), vectors(3, 1, 1)
    larger = [vector * 1000 for vector in one], [vector * 1000 for vector in other]
    assert float(similarity(*larger)) == pytest.approx(float(similarity(one, other)), rel=1e-12)
    assert float(similarity(*larger, "dot_prod")) == pytest.approx(1e6 * float(similarity(one, other, "dot_prod")))


def test_an_unknown_similarity() -> None:
    with pytest.raises(ConfigurationError, match="--grad-sim 'angle' is unknown: choose from cosine, dot_prod"):
        similarity(vectors(1), vectors(1), "angle")


def test_parameters_without_a_gradient_count_as_zero() -> None:
    one: list[Tensor | None] = [*vectors(1, 2), None]
    other: list[Tensor | None] = [None, *vectors(3, 4)]
    assert float(similarity(one, other)) == 0
    assert float(similarity(one, one)) == pytest.approx(1)
    both = weighted_sum(weighted_sum(None, 0.5, one), 2.0, other)
    torch.testing.assert_close(both[0], torch.tensor([0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(both[1], torch.tensor([6.0, 8.0], dtype=torch.float64))


def test_a_shared_parameter_counts_once() -> None:
    model = Shared()
    assert len([p for p in parameters_of(model) if p is model.first.weight]) == 1
    model.unused.weight.requires_grad = False
    assert all(p is not model.unused.weight for p in parameters_of(model))


def test_gradients_do_not_touch_grad() -> None:
    torch.manual_seed(2)
    model = Shared()
    model(torch.randn(4, 6)).sum().backward()
    before = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    x = torch.randn(4, 6)
    model.eval()
    computed = gradient(model(x).pow(2).sum(), parameters_of(model))
    for name, parameter in model.named_parameters():
        assert before[name] is None if parameter.grad is None else torch.equal(parameter.grad, before[name])
    model(x).pow(2).sum().backward()
    for (name, parameter), part in zip(model.named_parameters(), computed, strict=True):
        if part is None:
            assert "unused" in name
            continue
        torch.testing.assert_close(parameter.grad - before[name], part)


@pytest.mark.parametrize("held", [1, 2, 3, 5])
def test_the_matrix(held: int) -> None:
    """The mean of a column is the product of two vectors, the mean of unit vectors and a unit vector."""
    torch.manual_seed(3)
    development = [[torch.randn(4, 5, dtype=torch.float64)] for _ in range(5)]
    training = [[torch.randn(4, 5, dtype=torch.float64)] for _ in range(3)]
    calls: list[int] = []

    def called(place: int) -> list[Tensor]:
        calls.append(place)
        return training[place]

    matrix = similarity_matrix(
        [lambda one=one: one for one in development], [lambda i=i: called(i) for i in range(3)], "cosine", held
    )
    for k, one in enumerate(development):
        for i, other in enumerate(training):
            expected = torch.cosine_similarity(one[0].flatten(), other[0].flatten(), dim=0)
            torch.testing.assert_close(matrix[k, i], expected)
    assert calls == [0, 1, 2] * -(-5 // held)
    mean_unit = sum(one[0] / one[0].norm() for one in development) / 5
    for i, other in enumerate(training):
        once = (mean_unit * other[0] / other[0].norm()).sum()
        torch.testing.assert_close(matrix.mean(dim=0)[i], once, rtol=0, atol=1e-12)
    torch.testing.assert_close(row_weights(torch.ones(5, dtype=torch.float64), "ave") @ matrix, matrix.mean(dim=0))


def test_a_step_down_a_quadratic() -> None:
    """loss = |theta - c|^2 / 2 has the gradient theta - c, here and after a step."""
    theta = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    own, dev = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([-1.0, 3.0], dtype=torch.float64)
    eta = 0.1
    (g,) = gradient(((theta - own) ** 2).sum() / 2, [theta])
    before = theta.detach().clone()
    with displaced([theta], [g], -eta):
        (ahead,) = gradient(((theta - dev) ** 2).sum() / 2, [theta])
    torch.testing.assert_close(ahead, before - eta * (before - own) - dev)
    assert torch.equal(theta.detach(), before)
    expected = torch.cosine_similarity(before - own, before - eta * (before - own) - dev, dim=0)
    torch.testing.assert_close(similarity([ahead], [g]), expected)
