"""Actors: where they start, how a round moves them, and that they go on where they stopped."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors import LANGUAGE_ACTORS, ActorSettings, LanguageActor, make_actor
from fairseq_knn.sampling.distribution import size_distribution

KINDS = list(LANGUAGE_ACTORS)
SIZES = [5940, 4510, 10000, 61500, 182000, 208000, 185000, 103000]
SETTINGS = ActorSettings(lr=1e-4, optim_steps=200)
QUICK = ActorSettings(lr=0.05, optim_steps=3)


def draw(seed: int, n: int = 4) -> tuple[Tensor, Tensor]:
    """Similarities (n, n), and their means as rewards (n,)."""
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.randn(n, n, dtype=torch.float64, generator=generator)
    return similarity.mean(0), similarity


def some_distribution(n: int = 4) -> np.ndarray:
    return size_distribution(list(range(1, n + 1)), 1.0)


def written(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(io.BytesIO(written(state)), weights_only=True)
    return loaded


def logits_after(actor: LanguageActor) -> Tensor:
    logits: Tensor = actor.state_dict()["network"]["logits"]
    return logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 5.0, None])
def test_starts_exactly_where_it_should(kind: str, temperature: float | None) -> None:
    initial = size_distribution(SIZES, temperature)
    actor = make_actor(kind, initial, SETTINGS)
    assert actor.kind == kind
    assert actor.probabilities.dtype == np.float64
    np.testing.assert_allclose(actor.probabilities, initial, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_stays_a_distribution(kind: str) -> None:
    actor = make_actor(kind, some_distribution(), QUICK)
    for seed in range(5):
        actor.update(*draw(seed))
        assert actor.probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert (actor.probabilities > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_language_is_always_drawn(kind: str) -> None:
    actor = make_actor(kind, np.ones(1), QUICK)
    for seed in range(3):
        actor.update(*draw(seed, n=1))
        assert actor.probabilities.tolist() == [1.0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "base_weight"])
@pytest.mark.parametrize("development", [1, 7])
def test_any_number_of_development_languages(kind: str, development: int) -> None:
    actor = make_actor(kind, some_distribution(), QUICK)
    actor.check_development(development)
    rewards, _ = draw(0)
    actor.update(rewards, torch.zeros(development, 4, dtype=torch.float64))
    square = make_actor(kind, some_distribution(), QUICK)
    square.update(rewards, torch.zeros(4, 4, dtype=torch.float64))
    assert np.array_equal(actor.probabilities, square.probabilities)


def test_pairs_need_as_many_development_languages() -> None:
    actor = make_actor("base_weight", some_distribution(), QUICK)
    actor.check_development(4)
    for refuse in (lambda: actor.check_development(2), lambda: actor.update(draw(0)[0], draw(0)[1][:2])):
        with pytest.raises(ConfigurationError, match=r"--lang-pairs has 4 and --eval-lang-pairs 2"):
            refuse()
    np.testing.assert_allclose(actor.probabilities, some_distribution())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_and_change_nothing(kind: str, wrong: float) -> None:
    actor, other = (make_actor(kind, some_distribution(), QUICK) for _ in range(2))
    for a in (actor, other):
        a.update(*draw(0))
    for place in (0, 1):
        round_ = tuple(t.clone() for t in draw(1))
        round_[place].view(-1)[2] = wrong
        with pytest.raises(ValueError, match="not finite"):
            actor.update(*round_)
    with pytest.raises(ValueError, match="4 languages"):
        actor.update(*draw(1, n=3))
    for a in (actor, other):
        a.update(*draw(2))
    assert np.array_equal(actor.probabilities, other.probabilities)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_rewards_leave_a_distribution(kind: str) -> None:
    settings = ActorSettings(lr=100.0, optim_steps=20)
    actor = make_actor(kind, some_distribution(), settings)
    for scale in (1e4, -1e6, 1e-300, 0.0, 1e9):
        rewards, similarity = draw(3)
        actor.update(scale * rewards, scale * similarity)
        p = actor.probabilities
        assert np.isfinite(p).all()
        assert (p > 0).all()
        assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "scale_reward"),
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in KINDS if LANGUAGE_ACTORS[kind].scales_rewards)],
)
def test_stopped_and_resumed_equals_uninterrupted(kind: str, scale_reward: bool) -> None:
    settings = replace(QUICK, scale_reward=scale_reward)
    actor = make_actor(kind, some_distribution(), settings)
    for seed in range(3):
        actor.update(*draw(seed))
    state = actor.state_dict()
    at_stop = actor.probabilities
    for seed in range(3, 6):
        actor.update(*draw(seed))
    # Started otherwise, so that nothing is right by chance; twice, since the state must not be used up.
    for _ in range(2):
        resumed = make_actor(kind, size_distribution([1] * 4, None), replace(settings, seed=9))
        resumed.load_state_dict(saved_and_loaded(state))
        assert np.array_equal(resumed.probabilities, at_stop)
        resumed.load_state_dict(state)
        for seed in range(3, 6):
            resumed.update(*draw(seed))
        assert np.array_equal(resumed.probabilities, actor.probabilities)
        assert written(resumed.state_dict()) == written(actor.state_dict())


def test_resumed_with_another_learning_rate() -> None:
    actor = make_actor("base", some_distribution(), QUICK)
    actor.update(*draw(0))
    faster = make_actor("base", some_distribution(), replace(QUICK, lr=10 * QUICK.lr))
    faster.load_state_dict(actor.state_dict())
    before = logits_after(actor)
    actor.update(*draw(0))
    faster.update(*draw(0))
    assert (logits_after(faster) - before).abs().max() > 5 * (logits_after(actor) - before).abs().max()


def test_state_of_another_actor() -> None:
    state = make_actor("base", some_distribution(), QUICK).state_dict()
    for kind, n in (("lan", 4), ("base", 3), ("base_weight", 4)):
        with pytest.raises(ConfigurationError, match=r"'base' over 4 languages.*--data-actor"):
            make_actor(kind, some_distribution(n), QUICK).load_state_dict(state)
    wide = make_actor("lan", some_distribution(), QUICK)
    narrow = make_actor("lan", some_distribution(), replace(QUICK, lan_embed_dim=2))
    with pytest.raises(ConfigurationError, match="other sizes"):
        narrow.load_state_dict(wide.state_dict())


# The free logits


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale_reward", [False, True])
def test_a_step_goes_where_rewards_are_higher_than_expected(seed: int, scale_reward: bool) -> None:
    initial = size_distribution(SIZES, 1.0)
    rewards, similarity = draw(seed, n=8)
    actor = make_actor("base", initial, ActorSettings(lr=1e-4, optim_steps=1, scale_reward=scale_reward))
    actor.update(rewards, similarity)
    moved, r = logits_after(actor).numpy() - np.log(initial), rewards.numpy()
    surprise = r - initial @ r if scale_reward else r - initial * r.sum()
    assert np.array_equal(np.sign(moved), np.sign(surprise))
    assert np.abs(moved).max() <= 1e-4 * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_steps_of_a_round_are_bounded(seed: int) -> None:
    # With rewards that are not negative; else gradients grow while P changes, and Adam's steps with them.
    initial = size_distribution(SIZES, 1.0)
    rewards, similarity = draw(seed, n=8)
    actor = make_actor("base", initial, SETTINGS)
    actor.update(rewards.abs(), similarity)
    assert np.abs(logits_after(actor).numpy() - np.log(initial)).max() <= 200 * 1e-4 * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [1e-2, 0.5, 1e3])
def test_a_round_does_not_depend_on_the_scale_of_rewards(seed: int, factor: float) -> None:
    rewards, similarity = draw(seed, n=8)
    actors = [make_actor("base", size_distribution(SIZES, 5.0), SETTINGS) for _ in range(2)]
    actors[0].update(rewards, similarity)
    actors[1].update(factor * rewards, factor * similarity)
    # But for Adam's epsilon, a thousandth of the way is 2e-5.
    np.testing.assert_allclose(logits_after(actors[1]), logits_after(actors[0]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("scale_reward", [False, True])
@pytest.mark.parametrize("reward", [-0.5, 0.0, 0.3])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_equal_rewards_leave_equal_probabilities(n: int, reward: float, scale_reward: bool) -> None:
    settings = replace(SETTINGS, scale_reward=scale_reward)
    actor = make_actor("base", size_distribution([1] * n, None), settings)
    actor.update(torch.full((n,), reward, dtype=torch.float64), torch.full((n, n), reward, dtype=torch.float64))
    np.testing.assert_allclose(actor.probabilities, np.full(n, 1 / n), rtol=1e-9)


def adam_by_hand(logits: np.ndarray, rounds: list[np.ndarray], lr: float, steps: int, scale: bool) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1, on the formula of the gradient."""
    m, v, t = np.zeros_like(logits), np.zeros_like(logits), 0
    for r in rounds:
        for _ in range(steps):
            p = np.exp(logits) / np.exp(logits).sum()
            g = -p * (r - p @ r) if scale else p * r.sum() - r
            t += 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            logits = logits - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return logits


@pytest.mark.parametrize("scale_reward", [False, True])
def test_rounds_are_one_run_of_adam(scale_reward: bool) -> None:
    initial = some_distribution()
    actor = make_actor("base", initial, ActorSettings(lr=0.01, optim_steps=7, scale_reward=scale_reward))
    rounds = [draw(seed) for seed in range(4)]
    for rewards, similarity in rounds:
        actor.update(rewards, similarity)
    expected = adam_by_hand(np.log(initial), [r.numpy() for r, _ in rounds], 0.01, 7, scale_reward)
    np.testing.assert_allclose(logits_after(actor), expected, rtol=1e-9)


def test_learns_where_gradients_are_switched_off() -> None:
    inside, outside = (make_actor("base", some_distribution(), QUICK) for _ in range(2))
    outside.update(*draw(0))
    with torch.no_grad():
        inside.update(*draw(0))
    assert np.array_equal(inside.probabilities, outside.probabilities)


# Pairs of languages


def test_pairs_that_agree_are_drawn_more() -> None:
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[0, 1] = similarity[1, 0] = 0.9
    similarity[2, 3] = similarity[3, 2] = -0.9
    actor = make_actor("base_weight", size_distribution([1] * 4, None), SETTINGS)
    before = actor.probabilities @ similarity.numpy() @ actor.probabilities
    actor.update(similarity.mean(0), similarity)
    p = actor.probabilities
    assert min(p[:2]) > 0.25 > max(p[2:])
    assert p @ similarity.numpy() @ p > before


# Embeddings


def test_embeddings_learn_what_they_are_rewarded_for() -> None:
    actor = make_actor("lan", some_distribution(), ActorSettings(lr=0.01, optim_steps=300))
    rewards = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    for _ in range(5):
        actor.update(rewards, rewards.expand(4, 4))
    np.testing.assert_allclose(actor.probabilities, rewards, atol=1e-3)


def test_given_embeddings_are_kept_and_shared_by_languages_that_are_alike() -> None:
    given = torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    settings = ActorSettings(lr=1e-3, optim_steps=10, embed_dim=3, lan_embed_dim=4, embeddings=given)
    actor = make_actor("lan", size_distribution([1] * 3, None), settings)
    # Only the first language is rewarded; the second, described alike, goes with it.
    rewards = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    actor.update(rewards, rewards.expand(3, 3))
    assert actor.probabilities[0] > 1 / 3 > actor.probabilities[2]
    assert actor.probabilities[1] > actor.probabilities[2]
    network = actor.state_dict()["network"]
    torch.testing.assert_close(network["fixed"], given.double(), rtol=0, atol=0)
    assert network["learned"].shape == (3, 4)
    assert network["hidden_weight"].shape == (3, 6)


def test_embeddings_are_drawn_from_their_own_seed() -> None:
    before = torch.get_rng_state()
    states = [make_actor("lan", some_distribution(), replace(QUICK, seed=s)).state_dict() for s in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    learned = [state["network"]["learned"] for state in states]
    assert learned[0].shape == (4, 32)
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])
    assert learned[0].abs().max() <= 0.1


def test_unusable_embeddings() -> None:
    with pytest.raises(ConfigurationError, match="3 vectors for 4 languages"):
        make_actor("lan", some_distribution(), replace(QUICK, embeddings=torch.zeros(3, 2)))
    with pytest.raises(ConfigurationError, match="not finite"):
        make_actor("lan", some_distribution(), replace(QUICK, embeddings=torch.full((4, 2), torch.nan)))


# Closed forms


def test_only_grad_forgets_what_was() -> None:
    actor = make_actor("only_grad", some_distribution(), QUICK)
    for seed in range(2):
        rewards, similarity = draw(seed)
        actor.update(rewards, similarity)
        np.testing.assert_allclose(actor.probabilities, rewards.exp() / rewards.exp().sum(), rtol=1e-12)


def test_interpolate_grad_multiplies() -> None:
    actor = make_actor("interpolate_grad", np.array([0.5, 0.25, 0.25]), ActorSettings(lr=0.5))
    golden = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64).log() * 2  # exp(lr R) is 0, 2 and 4
    golden[0] = 0.0
    actor.update(golden, golden.expand(3, 3))
    np.testing.assert_allclose(actor.probabilities, [0.25, 0.25, 0.5], rtol=1e-12)
    actor.update(golden, golden.expand(3, 3))
    np.testing.assert_allclose(actor.probabilities, np.array([0.5, 1, 4]) / 5.5, rtol=1e-12)


def test_interpolate_grad_comes_back_from_below_the_smallest_number() -> None:
    actor = make_actor("interpolate_grad", np.array([0.5, 0.5]), ActorSettings(lr=1.0))
    rewards = torch.tensor([1000.0, 0.0], dtype=torch.float64)
    actor.update(rewards, rewards.expand(2, 2))
    assert 0 < actor.probabilities[1] < 1e-300
    actor.update(rewards.flip(0), rewards.expand(2, 2))
    np.testing.assert_allclose(actor.probabilities, [0.5, 0.5])


# Settings


def test_unknown_actor() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'transformer'.*base, base_weight, lan, only_grad, interpolate_grad.*--data-actor"
    ):
        make_actor("transformer", some_distribution(), QUICK)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"lr": 0.0}, "--data-actor-lr"),
        ({"lr": float("nan")}, "--data-actor-lr"),
        ({"lr": float("inf")}, "--data-actor-lr"),
        ({"optim_steps": 0}, "--data-actor-optim-step"),
        ({"embed_dim": 0}, "--data-actor-embed-dim"),
        ({"lan_embed_dim": 0}, "--lan-embed-dim"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        ActorSettings(**settings)


@pytest.mark.parametrize("kind", ["base_weight", "only_grad", "interpolate_grad"])
def test_rewards_that_nothing_would_scale(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--scale-reward.*base or lan$"):
        make_actor(kind, some_distribution(), replace(QUICK, scale_reward=True))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lan"])
def test_embeddings_that_nothing_would_read(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--embedding-file.*lan$"):
        make_actor(kind, some_distribution(), replace(QUICK, embeddings=torch.zeros(4, 2)))


@pytest.mark.parametrize("initial", [[0.5, 0.0, 0.5], [0.5, float("nan")], [1.0, 1.0], [[1.0]]])
def test_what_is_no_distribution(initial: list[float]) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        make_actor("base", np.array(initial), QUICK)
