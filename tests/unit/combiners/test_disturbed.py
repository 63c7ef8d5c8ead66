"""The noise that robust kNN-MT trains with."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from fairseq_knn.combiners import AdaptiveCombiner, KernelSmoothedCombiner, RobustCombiner, TrainedCombiner
from fairseq_knn.combiners.narrowed import mix_narrowed, narrow, narrowed_mixture
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval import Neighbours

K, V, D = 4, 20, 16


@pytest.fixture(autouse=True)
def _same_noise() -> None:
    torch.manual_seed(5)


def inputs(rows: int = 12) -> tuple[Tensor, Neighbours, Tensor, Tensor]:
    """Queries, neighbours (all, two or none of them found), targets that are never among them, what they are given."""
    query, keys = torch.randn(rows, D), torch.randn(rows, K, D)
    distances, order = (keys - query.unsqueeze(1)).square().sum(-1).sort(-1)
    keys = keys.gather(1, order.unsqueeze(-1).expand_as(keys))
    missing = torch.arange(K) >= torch.tensor([K, 2, 0])[torch.arange(rows) % 3, None]
    keys[missing] = torch.nan
    neighbours = Neighbours(
        distances.masked_fill(missing, torch.inf),
        torch.randint(100, 200, (rows, K)).masked_fill(missing, -1),
        torch.randint(1, V, (rows, K)).masked_fill(missing, 0),
        keys,
        torch.rand(rows, K).log(),
    )
    return query, neighbours, torch.zeros(rows, dtype=torch.int64), torch.full((rows,), -0.5)


def combiner(**settings: float) -> RobustCombiner:
    return RobustCombiner(K, V, **settings)  # type: ignore[arg-type]


def exact(query: Tensor, neighbours: Neighbours) -> Tensor:
    assert neighbours.keys is not None
    return (neighbours.keys - query.unsqueeze(-2)).square().sum(-1).masked_fill(~neighbours.found, torch.inf)


def equal(one: Neighbours, other: Neighbours) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) for a, b in pairs)


@pytest.mark.parametrize("make", [lambda: AdaptiveCombiner(K, V), lambda: KernelSmoothedCombiner(D, V)])
def test_others_are_not_disturbed(make: type[TrainedCombiner]) -> None:
    query, neighbours, target, given = inputs()
    assert make().disturbed(query, neighbours, target, given, 0) is neighbours
    assert not make().needs_keys_to_train
    assert combiner().needs_keys_to_train


def test_the_farthest_becomes_query_and_target() -> None:
    query, neighbours, target, given = inputs()
    got = combiner().disturbed(query, neighbours, target, given, 0)  # with probability 1
    own = got.found & (got.values == 0)
    assert own.sum(-1).eq(1).all()
    # Next to the query, so nearest of all.
    assert own[:, 0].all()
    assert got.distances[:, 0].max() < 4 * D * 0.01**2
    assert got.key_log_probs is not None
    assert torch.equal(got.key_log_probs[:, 0], given)
    # The farthest made way where there was no empty place, and nothing else did.
    found = neighbours.found.sum(-1)
    assert torch.equal(got.found.sum(-1), (found + 1).clamp(max=K))
    for row in range(len(query)):
        kept = neighbours.values[row, : min(int(found[row]), K - 1)]
        assert sorted(got.values[row, got.found[row]].tolist()) == sorted([0, *kept.tolist()])


def test_distances_are_those_to_the_noisy_keys_nearest_first() -> None:
    query, neighbours, target, given = inputs()
    got = combiner(sigma=0.5).disturbed(query, neighbours, target, given, 0)
    torch.testing.assert_close(got.distances, exact(query, got))
    assert (got.distances.diff(dim=-1).nan_to_num(0.0) >= 0).all()
    # What belongs to a neighbour moved with it.
    assert got.key_log_probs is not None
    assert neighbours.key_log_probs is not None
    for row in range(len(query)):
        old = got.found[row] & (got.values[row] != 0)
        for number, value, log_prob in zip(
            *(t[row, old] for t in (got.ids, got.values, got.key_log_probs)), strict=True
        ):
            before = neighbours.ids[row] == number
            assert value in neighbours.values[row, before]
            assert log_prob in neighbours.key_log_probs[row, before]


def test_noise_has_the_asked_standard_deviation() -> None:
    query, neighbours, _, given = inputs(3000)
    whole = Neighbours(*(getattr(neighbours, field.name)[::3] for field in fields(neighbours)))
    target = whole.values[:, 0]  # retrieved, so nothing is replaced
    # So little that the order stays.
    got = combiner(sigma=1e-5).disturbed(query[::3], whole, target, given[::3], 0)
    assert whole.keys is not None
    assert got.keys is not None
    assert torch.equal(got.values, whole.values)
    assert float((got.keys - whole.keys).std()) == pytest.approx(1e-5, rel=0.05)


def test_a_retrieved_target_replaces_nothing() -> None:
    query, neighbours, _, given = inputs()
    target = neighbours.values[:, 1]
    got = combiner().disturbed(query, neighbours, target, given, 0)
    some = neighbours.found.any(-1)
    assert torch.equal(got.ids[some].sort(-1).values, neighbours.ids[some].sort(-1).values)


def test_the_value_of_a_missing_neighbour_is_no_retrieved_target() -> None:
    """In columns the target is 0, as is what stands where there is no neighbour."""
    query, _, target, given = inputs(3)
    none = replace(
        Neighbours.none((3,), K, torch.device("cpu")), keys=torch.zeros(3, K, D), key_log_probs=torch.zeros(3, K)
    )
    got = combiner().disturbed(query, none, target, given, 0)
    assert got.found.sum(-1).tolist() == [1, 1, 1]
    assert got.ids[:, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("update", [0, 700])
def test_rate(update: int) -> None:
    query, neighbours, target, given = inputs(9000)
    got = combiner(alpha0=0.8, beta=500.0).disturbed(query, neighbours, target, given, update)
    rate = 0.8 * math.exp(-update / 500)
    own = (got.found & (got.values == 0)).any(-1)
    assert own.double().mean().item() == pytest.approx(rate, abs=0.02)
    # Keys are disturbed on their own, all of a query or none.
    whole = neighbours.found.all(-1) & ~own
    assert got.keys is not None
    assert neighbours.keys is not None
    moved = (got.keys != neighbours.keys).any(-1)[whole]
    assert torch.equal(moved.any(-1), moved.all(-1))
    assert moved[:, 0].double().mean().item() == pytest.approx(rate, abs=0.04)


def test_no_noise_leaves_what_was_retrieved() -> None:
    query, neighbours, target, given = inputs()
    # as an index with compressed keys finds them
    neighbours = replace(neighbours, distances=neighbours.distances + 0.25)
    assert equal(combiner(alpha0=0.0).disturbed(query, neighbours, target, given, 0), neighbours)
    assert equal(combiner(beta=10.0).disturbed(query, neighbours, target, given, 10**6), neighbours)


def test_noise_comes_from_the_global_generator() -> None:
    query, neighbours, target, given = inputs()
    torch.manual_seed(1)
    one = combiner(alpha0=0.5)
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(one.disturbed(query, neighbours, target, given, 0))
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_half_precision_and_leading_dimensions() -> None:
    query, neighbours, target, given = inputs()
    assert neighbours.keys is not None
    shaped = Neighbours(
        *(getattr(neighbours, field.name).unflatten(0, (3, 4)) for field in fields(neighbours)),
    )
    shaped = replace(shaped, keys=shaped.keys.half())  # type: ignore[union-attr]
    got = combiner().disturbed(query.half().view(3, 4, D), shaped, target.view(3, 4), given.view(3, 4), 0)
    assert got.keys is not None
    assert got.keys.dtype == got.distances.dtype == torch.float32
    assert got.keys.shape == (3, 4, K, D)
    torch.testing.assert_close(got.distances, exact(query.half().float().view(3, 4, D), got))


def test_trains_on_columns() -> None:
    """The target that takes a place is column 0 and the loss is that over the whole vocabulary."""
    query, neighbours, _, _ = inputs()
    log_probs, target = torch.randn(12, V).log_softmax(-1), torch.randint(1, V, (12,))
    narrowed = narrow(log_probs, target, neighbours)
    model = narrowed.log_probs[:, 0]
    robust = combiner(alpha0=0.7)
    torch.manual_seed(8)
    few = robust.disturbed(query, narrowed.name_columns(neighbours), torch.zeros_like(target), model, 0)
    torch.manual_seed(8)
    wide = robust.disturbed(query, neighbours, target, model, 0)
    assert torch.equal(few.ids, wide.ids)
    assert torch.equal((few.values == 0) & few.found, (wide.values == target.unsqueeze(-1)) & wide.found)
    with torch.no_grad():
        got = mix_narrowed(narrowed, few, narrowed_mixture(robust, query, few, narrowed))
        from_all = robust.mixture(query, wide, log_probs)
        expected = robust_loss(log_probs, wide, target, from_all.log_weights.exp(), from_all.weight)
    torch.testing.assert_close(got.target, expected)


def robust_loss(log_probs: Tensor, neighbours: Neighbours, target: Tensor, weights: Tensor, weight: Tensor) -> Tensor:
    at_target = (weights * (neighbours.values == target.unsqueeze(-1)) * neighbours.found).sum(-1)
    model = log_probs.exp().gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return (weight.squeeze(-1) * at_target + (1 - weight.squeeze(-1)) * model).log()


@pytest.mark.parametrize("settings", [{"alpha0": -0.1}, {"beta": 0.0}, {"sigma": -1.0}, {"sigma": float("nan")}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"training noise has alpha .*: choose beta above 0"):
        combiner(**settings)
