"""Actors learn what they are rewarded for, from the examples that count, over any number of processes."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors import InstanceActorSettings, make_instance_actor
from fairseq_knn.sampling.instance_training import InstanceActorTrainer

LR = 0.01
SOURCE = torch.tensor([[2, 3, 0], [4, 2, 5], [3, 0, 0], [5, 5, 2]])
TARGET = torch.tensor([[2, 0], [4, 3], [5, 5], [3, 0]])
REWARDS = torch.tensor([0.3, -1.0, 2.0, 0.7])


def trainer(
    score_type: str = "sigmoid",
    average: Callable[[Sequence[Tensor]], None] | None = None,
    kind: str = "ave_emb",
    lr: float = LR,
    **settings: Any,
) -> InstanceActorTrainer:
    made = make_instance_actor(
        kind, InstanceActorSettings(6, 6, 0, **{"embed_dim": 4, "score_type": score_type, **settings})
    )
    return InstanceActorTrainer(made, lr, average)


def values(of: InstanceActorTrainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in of.actor.parameters()]


def assert_same(a: InstanceActorTrainer, b: InstanceActorTrainer) -> None:
    for one, other in zip(values(a), values(b), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("score_type", ["sigmoid", "exp"])
def test_equals_adam_on_the_papers_loss(score_type: str) -> None:
    got, expected = trainer(score_type), trainer(score_type)
    optimizer = torch.optim.Adam(expected.actor.parameters(), lr=LR)
    for _ in range(5):
        got.step(SOURCE, TARGET, REWARDS)
        scores = expected.actor(SOURCE, TARGET)
        gains = torch.log(1e-20 + scores) if score_type == "exp" else scores
        optimizer.zero_grad()
        (-(gains * REWARDS).sum() / 4).backward()
        optimizer.step()
    assert_same(got, expected)


@pytest.mark.parametrize("score_type", ["sigmoid", "exp"])
def test_scores_follow_rewards(score_type: str) -> None:
    learner = trainer(score_type)
    with torch.no_grad():  # as in evaluation
        for _ in range(50):
            learner.step(SOURCE, TARGET, REWARDS)
    scores = learner.actor(SOURCE, TARGET)
    assert scores.argmin() == REWARDS.argmin()
    assert scores.argmax() == REWARDS.argmax()
    assert all(parameter.grad is None for parameter in learner.actor.parameters())


def test_exponentials_beyond_float32_do_no_harm() -> None:
    learner = trainer("exp")
    with torch.no_grad():
        learner.actor.output.bias.fill_(200.0)
    assert learner.actor(SOURCE, TARGET).isinf().all()
    learner.step(SOURCE, TARGET, -REWARDS.abs())
    assert all(value.isfinite().all() for value in values(learner))
    assert learner.actor.output.bias < 200


@pytest.mark.parametrize("score_type", ["sigmoid", "exp"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_rewards_that_are_not_finite_are_left_out(score_type: str, broken: float) -> None:
    rewards = REWARDS.clone()
    rewards[1] = broken
    whole, part = trainer(score_type), trainer(score_type)
    rest = torch.tensor([0, 2, 3])
    for _ in range(3):
        whole.step(SOURCE, TARGET, rewards)
        part.step(SOURCE[rest], TARGET[rest], REWARDS[rest])
    assert_same(whole, part)


@pytest.mark.parametrize("count", [4, 0])
def test_without_a_finite_reward_nothing_happens(count: int) -> None:
    learner = trainer()
    learner.step(SOURCE, TARGET, REWARDS)  # Adam would go on by its momentum
    before = values(learner)
    learner.step(SOURCE[:count], TARGET[:count], torch.full((count,), torch.nan))
    assert all(torch.equal(old, new) for old, new in zip(before, values(learner), strict=True))


@pytest.mark.parametrize("split", [1, 2, 3])
def test_two_processes_equal_one(split: int) -> None:
    """One of them has an example whose reward is NaN, with a split at 1 none but that."""
    rewards = REWARDS.clone()
    rewards[0] = torch.nan
    shared: list[list[Tensor]] = []

    def note(tensors: Sequence[Tensor]) -> None:
        shared.append([tensor.clone() for tensor in tensors])

    def average(tensors: Sequence[Tensor]) -> None:
        for own, others in zip(tensors, shared[-1], strict=True):
            own.add_(others).div_(2)

    one, first, second = trainer(), trainer(average=note), trainer(average=average)
    for mine in (rewards, REWARDS):
        # Only its gradients are wanted: for its own step it would have to wait for the second's.
        first.actor.load_state_dict(second.actor.state_dict())
        first.step(SOURCE[:split], TARGET[:split], mine[:split])
        second.step(SOURCE[split:], TARGET[split:], mine[split:])
        one.step(SOURCE, TARGET, mine)
    assert_same(one, second)


def test_every_process_averages_in_every_step() -> None:
    """One that has nothing to say must not leave the others waiting."""
    calls: list[list[torch.Size]] = []
    learner = trainer(average=lambda tensors: calls.append([tensor.shape for tensor in tensors]))
    learner.step(SOURCE, TARGET, REWARDS)
    learner.step(SOURCE, TARGET, torch.full((4,), torch.nan))
    assert len(calls) == 2
    assert calls[0] == calls[1]


def test_fixed_embeddings_stay() -> None:
    learner = trainer(train_embeddings=False)
    before = learner.actor.get_parameter("source.weight").clone()
    for _ in range(3):
        learner.step(SOURCE, TARGET, REWARDS)
    assert torch.equal(learner.actor.get_parameter("source.weight"), before)
    assert learner.actor.output.weight.abs().min() > 0


@pytest.mark.parametrize("kind", ["ave_emb", "transformer"])
def test_goes_on_from_a_checkpoint(kind: str) -> None:
    straight, stopped, resumed = trainer(kind=kind), trainer(kind=kind), trainer(kind=kind, seed=5, lr=LR)
    for _ in range(4):
        straight.step(SOURCE, TARGET, REWARDS)
    for _ in range(2):
        stopped.step(SOURCE, TARGET, REWARDS)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        resumed.step(SOURCE, TARGET, REWARDS)
    assert all(torch.equal(a, b) for a, b in zip(values(straight), values(resumed), strict=True))


def test_the_learning_rate_is_the_new_one() -> None:
    still = trainer(lr=0.0)
    still.load_state_dict(trainer().state_dict())
    before = values(still)
    still.step(SOURCE, TARGET, REWARDS)
    assert all(torch.equal(old, new) for old, new in zip(before, values(still), strict=True))


@pytest.mark.parametrize("other", [{"kind": "transformer"}, {"embed_dim": 8}])
def test_a_checkpoint_of_another_actor_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="--data-actor-embed-dim"):
        trainer().load_state_dict(trainer(**other).state_dict())
