"""A loss from few columns equals the loss over the whole vocabulary."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from fairseq_knn.combiners import (
    AdaptiveCombiner,
    Combiner,
    KernelSmoothedCombiner,
    Mixture,
    RobustCombiner,
    VanillaCombiner,
    mix,
)
from fairseq_knn.combiners.narrowed import (
    Mixed,
    NarrowedLogProbs,
    check_highest,
    mix_narrowed,
    narrow,
    narrowed_mixture,
)
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval import Neighbours
from tests.unit.combiners import reference

K, D = 8, 5
COMBINERS: dict[str, Callable[[int], Combiner]] = {
    "vanilla": lambda v: VanillaCombiner(0.6, 3.0),
    "vanilla, neighbours alone nearly": lambda v: VanillaCombiner(1 - 2.0**-20, 3.0),
    "adaptive joint": lambda v: AdaptiveCombiner(K, v),
    "adaptive separate": lambda v: AdaptiveCombiner(K, v, "separate", temperature=None),
    "kernel-smoothed": lambda v: KernelSmoothedCombiner(D, v),
    "robust": lambda v: RobustCombiner(K, v),
}


@pytest.fixture(autouse=True)
def _same_beginnings() -> None:
    torch.manual_seed(4)


def inputs(vocabulary: int, rows: int = 16, k: int = K) -> tuple[Tensor, Tensor, Tensor, Neighbours]:
    """Queries, log-probabilities, targets and neighbours with keys.

    Of every four targets two are a neighbour's token, one is the model's likeliest and one is any.
    """
    log_probs, found = reference.cases(7, rows, k, vocabulary)
    keys = torch.randn(rows, k, D)
    keys[~found.found] = torch.nan
    at_keys = (3 * torch.randn(rows, k)).sigmoid().log()
    target = torch.randint(0, vocabulary, (rows,))
    target[::2] = found.values[::2, k // 2]
    target[1::4] = log_probs[1::4].argmax(dim=-1)
    return torch.randn(rows, D), log_probs, target, replace(found, keys=keys, key_log_probs=at_keys)


def wide(combiner: Combiner, query: Tensor, log_probs: Tensor, target: Tensor, neighbours: Neighbours) -> Mixed:
    mixed = mix(log_probs.clone(), neighbours.values, combiner.mixture(query, neighbours, log_probs))
    at_target = mixed.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return Mixed(at_target, mixed.sum(dim=-1), mixed.argmax(dim=-1) == target)


def few(combiner: Combiner, query: Tensor, narrowed: NarrowedLogProbs, neighbours: Neighbours) -> Mixed:
    named = narrowed.name_columns(neighbours)
    return mix_narrowed(narrowed, named, narrowed_mixture(combiner, query, named, narrowed))


def gradients(combiner: Combiner, mixed: Mixed) -> list[Tensor]:
    if not isinstance(combiner, torch.nn.Module):
        return []
    combiner.zero_grad()
    (-mixed.target.sum() - 0.01 * mixed.total.sum()).backward()
    found = [parameter.grad for parameter in combiner.parameters()]
    assert all(grad is not None for grad in found)
    return [grad.clone() for grad in found if grad is not None]


@pytest.mark.parametrize("name", COMBINERS)
@pytest.mark.parametrize("vocabulary", [11, 400])  # with every token in a column, and with few
def test_equals_the_whole_vocabulary(name: str, vocabulary: int) -> None:
    combiner = COMBINERS[name](vocabulary)
    query, log_probs, target, neighbours = inputs(vocabulary)
    expected = wide(combiner, query, log_probs, target, neighbours)
    narrowed = narrow(log_probs, target, neighbours)
    before = [getattr(narrowed, field.name).clone() for field in fields(narrowed)]
    got = few(combiner, query, narrowed, neighbours)
    torch.testing.assert_close(got.target, expected.target, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.total, expected.total, rtol=1e-5, atol=1e-5)
    assert torch.equal(got.hit, expected.hit)
    assert 0 < got.hit.sum() < len(target)
    torch.testing.assert_close(gradients(combiner, got), gradients(combiner, expected), rtol=1e-4, atol=1e-5)
    assert all(
        torch.equal(old, getattr(narrowed, field.name)) for old, field in zip(before, fields(narrowed), strict=True)
    )


@pytest.mark.parametrize("name", ["vanilla", "kernel-smoothed"])
@pytest.mark.parametrize("nearest", [1, 3, 7])
def test_only_the_nearest_of_the_neighbours(name: str, nearest: int) -> None:
    """Of one set for K, as when several k are tried."""
    combiner = COMBINERS[name](50)
    query, log_probs, target, neighbours = inputs(50)
    used = Neighbours(*(getattr(neighbours, field.name)[:, :nearest] for field in fields(neighbours)))
    expected = wide(combiner, query, log_probs, target, used)
    got = few(combiner, query, narrow(log_probs, target, neighbours), used)
    torch.testing.assert_close(got[:2], expected[:2], rtol=1e-5, atol=1e-5)
    assert torch.equal(got.hit, expected.hit)
    torch.testing.assert_close(gradients(combiner, got), gradients(combiner, expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adaptive joint", "adaptive separate", "kernel-smoothed", "robust"])
def test_gradients(name: str) -> None:
    """Against finite differences in float64."""
    combiner = COMBINERS[name](30)
    assert isinstance(combiner, torch.nn.Module)
    combiner.double()
    query, log_probs, target, found = inputs(30, rows=8)
    assert found.keys is not None
    assert found.key_log_probs is not None
    neighbours = replace(
        found,
        distances=found.distances.double(),
        keys=found.keys.double(),
        key_log_probs=found.key_log_probs.double(),
    )
    narrowed = narrow(log_probs.double(), target, neighbours)
    assert narrowed.log_probs.dtype == narrowed.rest.dtype == torch.float64
    names = [name for name, _ in combiner.named_parameters()]

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.combiner = combiner

        def forward(self) -> Tensor:
            mixed = few(combiner, query.double(), narrowed, neighbours)  # type: ignore[arg-type]
            return -mixed.target.sum() - 0.01 * mixed.total.sum()

    def loss(*parameters: Tensor) -> Tensor:
        state = {f"combiner.{name}": parameter for name, parameter in zip(names, parameters, strict=True)}
        result: Tensor = torch.func.functional_call(Loss(), state, ())
        return result

    assert torch.autograd.gradcheck(loss, tuple(combiner.parameters()))


@pytest.mark.parametrize("strength", [-200.0, 200.0])  # the sigmoid is 0 or 1 in float32
def test_saturated_weight(strength: float) -> None:
    query, log_probs, target, neighbours = inputs(60)
    any_found = neighbours.found.any(dim=-1, keepdim=True)
    narrowed = narrow(log_probs, target, neighbours)
    results, grads = [], []
    for columns in (False, True):
        parameter = torch.full((len(target), 1), strength, requires_grad=True)
        vanilla = VanillaCombiner(0.5, 3.0).mixture(query, neighbours, log_probs)
        mixture = Mixture(vanilla.log_weights, parameter.sigmoid() * any_found)
        if columns:
            got = mix_narrowed(narrowed, narrowed.name_columns(neighbours), mixture)
            results.append(torch.stack(got[:2]))
        else:
            mixed = mix(log_probs.clone(), neighbours.values, mixture)
            results.append(torch.stack([mixed.gather(-1, target.unsqueeze(-1)).squeeze(-1), mixed.sum(dim=-1)]))
        results[-1].sum().backward()
        grads.append(parameter.grad)
    assert results[1].isfinite().all()
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [4, 60])
def test_neighbours_alone(vocabulary: int) -> None:
    """Lambda is 1 and fixed: what no neighbour has is impossible, with and without tokens that have no column."""
    combiner = VanillaCombiner(1.0, 3.0)
    query, log_probs, target, neighbours = inputs(vocabulary)
    expected = wide(combiner, query, log_probs, target, neighbours)
    got = few(combiner, query, narrow(log_probs, target, neighbours), neighbours)
    torch.testing.assert_close(got[:2], expected[:2], rtol=1e-5, atol=1e-5)
    assert not got.total.isnan().any()


def test_what_is_kept() -> None:
    log_probs = torch.tensor([[0.1, 0.4, 0.05, 0.25, 0.15, 0.05]]).log()
    found = Neighbours(
        torch.tensor([[1.0, 2.0, 3.0, torch.inf]]), torch.tensor([[5, 6, 7, -1]]), torch.tensor([[4, 1, 4, 0]])
    )
    narrowed = narrow(log_probs, torch.tensor([2]), found, highest=2)
    # target 2; tokens 4, 1, 4 and none; the highest, 1 and 3
    torch.testing.assert_close(narrowed.log_probs.exp(), torch.tensor([[0.05, 0.15, 0.4, 0, 0, 0, 0.25]]))
    assert narrowed.columns.tolist() == [[1, 2, 1, 0]]
    torch.testing.assert_close(narrowed.rest.exp(), torch.tensor([0.1 * 0.05]))
    assert narrowed.others.tolist() == [2]
    assert narrowed.highest == 2
    assert narrow(log_probs, torch.tensor([4]), found, highest=2).columns.tolist() == [[0, 2, 0, 0]]


def test_leading_dimensions() -> None:
    _, log_probs, target, neighbours = inputs(40, rows=12)
    flat = narrow(log_probs, target, neighbours)
    shaped = Neighbours(*(t.view(3, 4, K) for t in (neighbours.distances, neighbours.ids, neighbours.values)))
    got = narrow(log_probs.view(3, 4, -1), target.view(3, 4), shaped)
    for field in fields(flat):
        assert torch.equal(getattr(got, field.name).flatten(0, 1), getattr(flat, field.name))
    assert got.columns.dtype == got.others.dtype == torch.int64


def test_half_precision_is_added_up_in_float32() -> None:
    _, log_probs, target, neighbours = inputs(60_000, rows=4)
    narrowed = narrow(log_probs.half(), target, neighbours)
    assert narrowed.log_probs.dtype == narrowed.rest.dtype == torch.float32
    torch.testing.assert_close(narrowed.rest, narrow(log_probs, target, neighbours).rest, rtol=1e-4, atol=0)


def test_target_as_likely_as_another_token_is_hit() -> None:
    none = Neighbours.none((2,), 3, torch.device("cpu"))
    narrowed = narrow(torch.tensor([[0.4, 0.4, 0.2]]).log().expand(2, 3), torch.tensor([1, 2]), none)
    mixture = VanillaCombiner(0.5, 1.0).mixture(torch.zeros(2, D), none, narrowed.log_probs)
    assert mix_narrowed(narrowed, narrowed.name_columns(none), mixture).hit.tolist() == [True, False]


def test_a_combiner_that_looks_at_more() -> None:
    combiner = RobustCombiner(K, 400, top=12)
    query, log_probs, target, neighbours = inputs(400)
    with pytest.raises(
        ConfigurationError, match=r"robust combiner looks at the model's 12 highest .*, but 8 were kept"
    ):
        few(combiner, query, narrow(log_probs, target, neighbours), neighbours)
    check_highest(combiner, 12)
    kept = few(combiner, query, narrow(log_probs, target, neighbours, highest=12), neighbours)
    expected = wide(combiner, query, log_probs, target, neighbours)
    torch.testing.assert_close(kept[:2], expected[:2], rtol=1e-5, atol=1e-5)
