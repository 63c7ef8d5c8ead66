"""A trained combiner computes in float32, whatever the model it belongs to computes in."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.combiners import (
    AdaptiveCombiner,
    KernelSmoothedCombiner,
    Mixture,
    RobustCombiner,
    TrainedCombiner,
)
from fairseq_knn.retrieval import Neighbours
from tests.unit.combiners import reference

K, V, D, ROWS = 8, 30, 6, 8
MAKE: dict[str, Callable[[], TrainedCombiner]] = {
    "adaptive joint": lambda: AdaptiveCombiner(K, V),
    "adaptive separate": lambda: AdaptiveCombiner(K, V, "separate", temperature=None),
    "kernel-smoothed laplacian": lambda: KernelSmoothedCombiner(D, V),
    "kernel-smoothed gaussian": lambda: KernelSmoothedCombiner(D, V, "gaussian"),
    "robust": lambda: RobustCombiner(K, V),
}


@pytest.fixture(autouse=True)
def _same_beginnings() -> None:
    torch.manual_seed(3)


def inputs(scale: float = 1e5) -> tuple[Tensor, Neighbours, Tensor]:
    """Exact in half precision, except the distances, which are beyond it."""
    log_probs, found = reference.cases(1, ROWS, K, V, scale)
    keys, at_keys = torch.randn(ROWS, K, D).half().float(), torch.rand(ROWS, K).log().half().float()
    return (
        torch.randn(ROWS, D).half().float(),
        replace(found, keys=keys, key_log_probs=at_keys),
        log_probs.half().float(),
    )


def assert_same(got: Mixture, expected: Mixture) -> None:
    for one, other in ((got.log_weights, expected.log_weights), (got.weight, expected.weight)):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)
    assert not got.weight.isnan().any()
    assert not got.log_weights.isnan().any()


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    "convert",
    [
        lambda module: module.half(),
        lambda module: module.bfloat16(),
        lambda module: module.to(torch.float16),
        lambda module: module.half().to("cpu").float(),
    ],
)
def test_stays_as_it_is_in_a_converted_model(name: str, convert: Callable[[nn.Module], Any]) -> None:
    combiner = MAKE[name]()
    before = {key: tensor.clone() for key, tensor in combiner.state_dict().items()}
    query, neighbours, log_probs = inputs()
    with torch.no_grad():
        expected = combiner.mixture(query, neighbours, log_probs)
    model = nn.ModuleDict({"combiner": combiner, "projection": nn.Linear(D, V)})
    convert(model)
    after = combiner.state_dict()
    assert all(torch.equal(after[key], tensor) and after[key].dtype == tensor.dtype for key, tensor in before.items())
    with torch.no_grad():
        assert_same(combiner.mixture(query, neighbours, log_probs), expected)


def test_the_rest_of_the_model_is_converted() -> None:
    model = nn.ModuleDict({"combiner": AdaptiveCombiner(K, V), "projection": nn.Linear(D, V)})
    model.half()
    assert {parameter.dtype for parameter in model["projection"].parameters()} == {torch.float16}


@pytest.mark.parametrize("name", MAKE)
def test_moves_and_changes_to_double(name: str) -> None:
    combiner = MAKE[name]()
    assert {parameter.dtype for parameter in combiner.double().parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in combiner.float().parameters()} == {torch.float32}
    moved = combiner.to("meta", torch.float16)
    assert {(tensor.device.type, tensor.dtype) for tensor in moved.parameters()} == {("meta", torch.float32)}
    assert {tensor.device.type for tensor in moved.buffers()} <= {"meta"}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("scale", [10.0, 1e5])
def test_what_the_model_gives_may_be_in_half_precision(name: str, scale: float) -> None:
    combiner = MAKE[name]()
    query, neighbours, log_probs = inputs(scale)
    assert neighbours.keys is not None
    assert neighbours.key_log_probs is not None
    halves = replace(neighbours, keys=neighbours.keys.half(), key_log_probs=neighbours.key_log_probs.half())
    with torch.no_grad():
        expected = combiner.mixture(query, neighbours, log_probs)
        assert_same(combiner.mixture(query.half(), halves, log_probs), expected)
        assert_same(combiner.mixture(query.half(), halves, log_probs.half()), expected)


@pytest.mark.parametrize("name", MAKE)
def test_automatic_mixed_precision_does_not_reach_it(name: str) -> None:
    combiner = MAKE[name]()
    query, neighbours, log_probs = inputs()
    with torch.no_grad():
        expected = combiner.mixture(query, neighbours, log_probs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same(combiner.mixture(query, neighbours, log_probs), expected)
