"""Trained combiners equal slow loops in float64, what knn-box computes, and themselves after being saved."""

import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.combiners import (
    AdaptiveCombiner,
    Combiner,
    KernelSmoothedCombiner,
    RobustCombiner,
    TrainedCombiner,
    VanillaCombiner,
    mix,
)
from fairseq_knn.combiners.features import distinct_values
from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.errors import CombinerError, ConfigurationError, UserError
from fairseq_knn.retrieval import Neighbours
from tests.unit.combiners import reference

DATA = Path(__file__).parents[2] / "data" / "combiners"
K, V, D = 8, 11, 5


@pytest.fixture(autouse=True)
def _same_beginnings() -> None:
    torch.manual_seed(2)


def inputs(seed: int, rows: int = 8, scale: float = 10.0) -> tuple[Tensor, Tensor, Neighbours]:
    """Queries, the model's log-probabilities, and neighbours of which some are missing, with keys."""
    log_probs, found = reference.cases(seed, rows, K, V, scale)
    generator = torch.Generator().manual_seed(seed)
    query, keys = torch.randn(rows, D, generator=generator), torch.randn(rows, K, D, generator=generator)
    at_keys = (3 * torch.randn(rows, K, generator=generator)).sigmoid().log()
    keys[found.ids < 0] = torch.nan  # whatever is there must not matter
    return query, log_probs, Neighbours(found.distances, found.ids, found.values, keys, at_keys)


def shaken(combiner: TrainedCombiner, seed: int = 1) -> TrainedCombiner:
    """The same with parameters that differ from their beginnings."""
    generator = torch.Generator().manual_seed(seed)
    # Robust's scores add up many logarithms: large parameters would make lambda 0 or 1.
    scale = 0.03 if isinstance(combiner, RobustCombiner) else 0.3
    with torch.no_grad():
        if isinstance(combiner, RobustCombiner):
            combiner.model_score.weight *= 0.1
        for parameter in combiner.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return combiner


def adaptive_joint(c: AdaptiveCombiner, *_: Any) -> Callable[..., tuple[np.ndarray, float]]:
    def weigh(row: int, distances: np.ndarray, values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, float]:
        choice = reference.softmax(reference.layers(c.to_choice, reference.seen(distances, values, K)))
        weight = 1 - choice[0]
        return reference.nested(distances, c.temperature or 0, choice[1:] / weight), weight

    return weigh


def adaptive_separate(c: Any, *_: Any) -> Callable[..., tuple[np.ndarray, float]]:
    def weigh(row: int, distances: np.ndarray, values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, float]:
        seen = reference.seen(distances, values, K)
        shares = np.eye(4)[c.k.bit_length() - 1] if c.k else reference.softmax(reference.layers(c.to_k, seen))
        weight = c.weight if c.weight is not None else reference.sigmoid(reference.layers(c.to_lambda, seen)[0])
        temperature = c.temperature or reference.sigmoid(reference.layers(c.to_temperature, seen)[0])
        return reference.nested(distances, temperature, shares), weight

    return weigh


def kernel_smoothed(c: Any, query: Tensor, _: Tensor, neighbours: Neighbours) -> Callable[..., Any]:
    def weigh(row: int, distances: np.ndarray, values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, float]:
        assert neighbours.keys is not None
        q, keys = query[row].double().numpy(), neighbours.keys[row].double().numpy()[found]
        linear = c.log_bandwidth.weight.detach().double().numpy()[0], c.log_bandwidth.bias.item()
        bandwidth = np.exp(linear[0] @ np.concatenate([q, keys.mean(axis=0)]) + linear[1])
        weights = reference.softmax(-(np.sqrt(distances) if c.kernel == "laplacian" else distances) / bandwidth)
        seen = np.concatenate([q, weights @ keys])
        return weights, reference.sigmoid(reference.layers(c.to_lambda, seen)[0])

    return weigh


def robust(c: Any, _: Tensor, log_probs: Tensor, neighbours: Neighbours) -> Callable[..., Any]:
    def weigh(row: int, distances: np.ndarray, values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, float]:
        assert neighbours.key_log_probs is not None
        model = log_probs[row].double().numpy()
        at_key = neighbours.key_log_probs[row].double().numpy()[found]
        calibration = [
            reference.layers(c.calibration, np.array(pair))[0] for pair in zip(at_key, model[values], strict=True)
        ]
        score, temperature = reference.layers(c.neighbour_score, reference.seen(distances, values, K))
        weights = reference.softmax(-distances * reference.sigmoid(temperature) + np.array(calibration))
        least = [-50.0] * (K - len(distances))
        features = np.concatenate([np.sort(model)[::-1][: c.top], at_key, least, model[values], least])
        against = c.model_score.weight.detach().double().numpy()[0] @ features + c.model_score.bias.item()
        return weights, reference.sigmoid(score - against)

    return weigh


CASES: dict[str, tuple[Callable[[], TrainedCombiner], Callable[..., Any]]] = {
    "adaptive joint": (lambda: AdaptiveCombiner(K, V), adaptive_joint),
    # Each of the three fixed or learned, and at least one learned.
    **{
        f"adaptive separate, k {k}, lambda {weight}, T {temperature}": (
            partial(AdaptiveCombiner, K, V, "separate", k=k, weight=weight, temperature=temperature),
            adaptive_separate,
        )
        for k, weight, temperature in product([None, 4], [None, 0.4], [None, 10.0])
        if None in (k, weight, temperature)
    },
    "kernel-smoothed laplacian": (lambda: KernelSmoothedCombiner(D, V), kernel_smoothed),
    "kernel-smoothed gaussian": (lambda: KernelSmoothedCombiner(D, V, "gaussian"), kernel_smoothed),
    "robust": (lambda: RobustCombiner(K, V), robust),
}


def combine(combiner: Combiner, query: Tensor, log_probs: Tensor, neighbours: Neighbours) -> Tensor:
    return mix(log_probs.clone(), neighbours.values, combiner.mixture(query, neighbours, log_probs))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_loop(name: str, seed: int) -> None:
    make, loop = CASES[name]
    combiner = shaken(make(), seed)
    query, log_probs, neighbours = inputs(seed)
    with torch.no_grad():
        got = combine(combiner, query, log_probs, neighbours)
    weigh = loop(combiner, query, log_probs, neighbours)
    expected = reference.each(log_probs, neighbours, weigh)
    np.testing.assert_allclose(got.double().exp(), np.exp(expected), rtol=0, atol=2e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    """Of the loss with respect to every parameter, against finite differences in float64."""
    combiner = shaken(CASES[name][0]()).double()
    query, log_probs, found = inputs(2)
    query, log_probs = query.double(), log_probs.double()
    keys, at_keys = found.keys, found.key_log_probs
    assert keys is not None
    assert at_keys is not None
    neighbours = Neighbours(found.distances.double(), found.ids, found.values, keys.double(), at_keys.double())
    names = [key for key, _ in combiner.named_parameters()]

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.combiner = combiner

        def forward(self) -> Tensor:
            mixture = combiner.mixture(query, neighbours, log_probs)
            return mix(log_probs.clone(), neighbours.values, mixture).sum()

    loss = Loss()

    def of(*parameters: Tensor) -> Tensor:
        state = {f"combiner.{key}": value for key, value in zip(names, parameters, strict=True)}
        value: Tensor = torch.func.functional_call(loss, state, ())
        return value

    parameters = tuple(parameter.detach().clone().requires_grad_() for parameter in combiner.parameters())
    assert torch.autograd.gradcheck(of, parameters)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [0.0, 1e5])
def test_nothing_becomes_nan(name: str, scale: float) -> None:
    combiner = CASES[name][0]()
    query, log_probs, neighbours = inputs(4, scale=scale)
    mixture = combiner.mixture(query, neighbours, log_probs)
    missing = ~neighbours.found.any(dim=-1)
    assert missing.any()
    assert not mixture.weight[missing].any()
    mixed = mix(log_probs.clone(), neighbours.values, mixture)
    assert not mixed.isnan().any()
    assert torch.equal(mixed[missing], log_probs[missing])
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(len(mixed)), rtol=0, atol=1e-5)
    mixed.clamp(min=-100).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in combiner.parameters())


def test_equal_tokens_are_counted_once() -> None:
    values = torch.tensor([[5, 5, 7, 9], [0, 5, 5, 7], [0, 0, 0, 0], [3, 4, 3, 4]])
    neighbours = Neighbours(torch.zeros(4, 4), torch.zeros_like(values), values)
    # The code of the papers counts [0, 1, 1, 2] and [0, 0, 0, 0] for the second and the third: it never sees token 0.
    assert distinct_values(neighbours).tolist() == [[1, 1, 2, 3], [1, 2, 2, 3], [1, 1, 1, 1], [1, 2, 2, 2]]


def knnbox(name: str) -> tuple[Tensor, Tensor, Neighbours, dict[str, Tensor]]:
    """Inputs and outputs of one of knn-box's combiners."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / f"{name}.npz").items()}
    at_keys = arrays["knn_key_feature"].log() if "knn_key_feature" in arrays else None
    ids = torch.zeros_like(arrays["vals"])
    neighbours = Neighbours(arrays["distances"], ids, arrays["vals"], arrays["keys"], at_keys)
    return arrays["query"], arrays["logits"].log_softmax(-1), neighbours, arrays


def without_nearest(n: Neighbours) -> Neighbours:
    assert n.keys is not None
    return Neighbours(n.distances[..., 1:], n.ids[..., 1:], n.values[..., 1:], n.keys[..., 1:, :])


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("vanilla", None),
        ("adaptive", "adaptive"),
        ("kster_laplacian_eval", "kster_laplacian"),
        ("kster_laplacian_train", "kster_laplacian"),
        ("kster_gaussian_eval", "kster_gaussian"),
        ("kster_gaussian_train", "kster_gaussian"),
        ("robust", "robust"),
    ],
)
def test_what_knnbox_computes(name: str, directory: str | None) -> None:
    query, log_probs, neighbours, expected = knnbox(name)
    if name.endswith("_train"):  # there the nearest neighbour, the query's own entry, is left out
        neighbours = without_nearest(neighbours)
    combiner = VanillaCombiner(0.7, 10.0) if directory is None else load_combiner(DATA / directory)
    with torch.no_grad():
        mixture = combiner.mixture(query, neighbours, log_probs)
        mixed = mix(log_probs.clone(), neighbours.values, mixture).exp()
    torch.testing.assert_close(mixed, expected["combined_prob"], rtol=0, atol=1e-5)
    if "lambda_" in expected:
        torch.testing.assert_close(mixture.weight, expected["lambda_"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", ["laplacian", "gaussian"])
def test_called_as_in_knnbox(kernel: str) -> None:
    query, _, neighbours, expected = knnbox(f"kster_{kernel}_eval")
    combiner = KernelSmoothedCombiner.load(DATA / f"kster_{kernel}")
    found = {"vals": neighbours.values, "distances": neighbours.distances, "keys": neighbours.keys}
    with torch.no_grad():
        probs = combiner.get_knn_prob(query=query, **found, device="cpu")
        torch.testing.assert_close(probs, expected["knn_prob"], rtol=0, atol=1e-5)
        combined = combiner.get_combined_prob(probs, expected["logits"])
        torch.testing.assert_close(combined, expected["combined_prob"], rtol=0, atol=1e-5)
        logarithms = combiner.get_combined_prob(probs, expected["logits"], log_probs=True)
        torch.testing.assert_close(logarithms.exp(), expected["combined_prob"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    combiner = shaken(CASES[name][0]())
    combiner.dump(tmp_path / "combiner")
    assert sorted(path.name for path in (tmp_path / "combiner").iterdir()) == ["combiner.safetensors", "config.json"]
    query, log_probs, neighbours = inputs(0)
    for loaded in (load_combiner(tmp_path / "combiner"), type(combiner).load(tmp_path / "combiner")):
        assert type(loaded) is type(combiner)
        assert loaded.config() == combiner.config()
        with torch.no_grad():
            assert torch.equal(
                combine(loaded, query, log_probs, neighbours), combine(combiner, query, log_probs, neighbours)
            )


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "combiner"
    with pytest.raises(CombinerError, match=r"there is no combiner in .*: train one"):
        load_combiner(path)
    KernelSmoothedCombiner(D, V).dump(path)
    with pytest.raises(CombinerError, match="of the kind 'kernel_smoothed', but 'robust' was asked for"):
        RobustCombiner.load(path)
    weights = (path / "combiner.safetensors").read_bytes()
    for content in (b"", weights[:-7], b"no weights"):
        (path / "combiner.safetensors").write_bytes(content)
        with pytest.raises(CombinerError, match=r"holds no whole kernel_smoothed combiner") as caught:
            load_combiner(path)
        assert "\n" not in str(caught.value)
    config = json.loads((path / "config.json").read_text())
    for damaged, message in (
        ({**config, "combiner": "neural"}, "of the kind 'neural', and none of adaptive, kernel_smoothed, robust"),
        ({**config, "query_dim": D + 1}, "holds no whole kernel_smoothed combiner"),
        ({**config, "combiner": None}, "holds no parameters of a combiner"),
        ([], "does not describe a combiner"),
    ):
        (path / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(CombinerError, match=message):
            load_combiner(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveCombiner(6, V), "max-k is 6, but adaptive"),
        (lambda: AdaptiveCombiner(0, V), "max-k is 0"),
        (lambda: AdaptiveCombiner(8, V, "both"), "the form is 'both', but adaptive kNN-MT has joint and separate"),
        (lambda: AdaptiveCombiner(8, V, "joint", temperature=None), "joint form has a fixed temperature"),
        (
            lambda: KernelSmoothedCombiner(D, V, "cosine"),
            "the kernel is 'cosine', but there are laplacian",
        ),
    ],
)
def test_settings_out_of_range(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        make()
    assert isinstance(caught.value, UserError)


def test_settings_saved_before_there_was_noise(tmp_path: Path) -> None:
    """Load with the published noise."""
    RobustCombiner(K, V, alpha0=0.3, beta=10.0, sigma=0.5).dump(tmp_path)
    loaded = RobustCombiner.load(tmp_path)
    assert (loaded.alpha0, loaded.beta, loaded.sigma) == (0.3, 10.0, 0.5)
    config = json.loads((tmp_path / "config.json").read_text())
    old = {name: value for name, value in config.items() if name not in ("alpha0", "beta", "sigma")}
    (tmp_path / "config.json").write_text(json.dumps(old))
    loaded = RobustCombiner.load(tmp_path)
    assert (loaded.alpha0, loaded.beta, loaded.sigma) == (1.0, 1000.0, 0.01)


def test_what_is_measured() -> None:
    """The numbers that divide the distances: found again from the weights."""
    query, log_probs, neighbours = inputs(0)
    two = neighbours.found[:, 1]
    gaps = (neighbours.distances[:, 0] - neighbours.distances[:, 1])[two]
    fixed = {"k": K, "weight": 0.5}
    cases: list[tuple[TrainedCombiner, str]] = [
        (shaken(KernelSmoothedCombiner(D, V, "gaussian")), "bandwidth"),
        (shaken(AdaptiveCombiner(K, V, "separate", temperature=None, **fixed)), "temperature"),  # type: ignore[arg-type]
        (shaken(RobustCombiner(K, V)), "temperature"),
    ]
    for combiner, name in cases:
        if isinstance(combiner, RobustCombiner):
            torch.nn.init.zeros_(combiner.calibration[2].weight)
        mixture = combiner.mixture(query, neighbours, log_probs)
        assert list(mixture.measured) == [name]
        measured = mixture.measured[name]
        assert measured.shape == (len(query), 1)
        assert not measured.requires_grad
        log_ratio = (mixture.log_weights[:, 1] - mixture.log_weights[:, 0])[two]
        torch.testing.assert_close(log_ratio, gaps / measured[two, 0], rtol=1e-3, atol=1e-4)
    for unmeasured in (AdaptiveCombiner(K, V), AdaptiveCombiner(K, V, "separate"), VanillaCombiner()):
        assert unmeasured.mixture(query, neighbours, log_probs).measured == {}
