"""What actors minimise: gradients by hand, and where they lead."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fairseq_knn.sampling.actors.optimised import reward_loss
from fairseq_knn.sampling.actors.pairwise import pairwise_loss

SEEDS = range(5)


def draw(seed: int, n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and rewards (n,), similarities (n, n)."""
    generator = torch.Generator().manual_seed(seed)
    logits, rewards = torch.randn(2, n, dtype=torch.float64, generator=generator)
    similarity = torch.randn(n, n, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), rewards, similarity


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss(logits), logits)[0]


def descend(loss: Callable[[Tensor], Tensor], logits: Tensor, lr: float, steps: int) -> Tensor:
    """P after plain gradient descent."""
    for _ in range(steps):
        logits = (logits - lr * gradient(loss, logits)).detach().requires_grad_()
    return logits.softmax(0).detach()


def test_golden_gradients() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().requires_grad_()
    rewards = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    # sum R = 2, E R = 0.75
    plain = gradient(lambda x: reward_loss(x, rewards), logits)
    torch.testing.assert_close(plain, torch.tensor([0.0, -1.5, 1.5], dtype=torch.float64))
    scaled = gradient(lambda x: reward_loss(x, rewards, scale_reward=True), logits)
    torch.testing.assert_close(scaled, torch.tensor([-0.125, -0.3125, 0.4375], dtype=torch.float64))


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_of_the_loss(seed: int) -> None:
    logits, rewards, _ = draw(seed)
    assert torch.autograd.gradcheck(lambda x: reward_loss(x, rewards), logits)
    got, p = gradient(lambda x: reward_loss(x, rewards), logits), logits.softmax(0)
    torch.testing.assert_close(got, p * rewards.sum() - rewards)
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_of_the_scaled_loss(seed: int) -> None:
    logits, rewards, _ = draw(seed)
    assert torch.autograd.gradcheck(lambda x: reward_loss(x, rewards, scale_reward=True), logits)
    got, p = gradient(lambda x: reward_loss(x, rewards, scale_reward=True), logits), logits.softmax(0)
    torch.testing.assert_close(got, -p * (rewards - (p * rewards).sum()))
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)
    # The same as of the terms of the plain loss, each times a P that is taken for a constant.
    terms = gradient(lambda x: -(x.softmax(0).detach() * rewards * x.log_softmax(0)).sum(), logits)
    torch.testing.assert_close(got, terms)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_of_the_pairwise_loss(seed: int) -> None:
    logits, _, similarity = draw(seed)
    assert torch.autograd.gradcheck(lambda x: pairwise_loss(x, similarity), logits)
    p = logits.softmax(0).detach()
    slow = sum(similarity[k, i] * p[k] * p[i] for k in range(len(p)) for i in range(len(p)))
    assert pairwise_loss(logits, similarity).item() == pytest.approx(-float(slow))
    expected = -p * ((similarity + similarity.T) @ p - 2 * (p @ similarity @ p))
    got = gradient(lambda x: pairwise_loss(x, similarity), logits)
    torch.testing.assert_close(got, expected)
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_rewards_lead_to_their_proportions(seed: int) -> None:
    logits, rewards, _ = draw(seed)
    rewards = rewards.abs()
    p = descend(lambda x: reward_loss(x, rewards), logits, lr=0.5, steps=4000)
    torch.testing.assert_close(p, rewards / rewards.sum(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_scaled_rewards_lead_to_the_highest_alone(seed: int) -> None:
    logits, rewards, _ = draw(seed)
    p = descend(lambda x: reward_loss(x, rewards, scale_reward=True), logits, lr=20.0, steps=3000)
    assert p.argmax() == rewards.argmax()
    assert float(p.max()) > 0.99


def test_languages_that_agree_with_each_other_are_drawn_together() -> None:
    similarity = torch.tensor([[0.5, 0.4, -0.3], [0.4, 0.5, -0.3], [-0.3, -0.3, 0.5]], dtype=torch.float64)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    p = descend(lambda x: pairwise_loss(x, similarity), logits, lr=0.5, steps=200)
    assert float(p[2]) < 0.01
    assert float(p[0]) == pytest.approx(float(p[1]))
