"""Combiners made by name, with the options of each."""

import math
from typing import Any

import pytest
import torch

from fairseq_knn.combiners import COMBINERS, CombinerSizes, KernelSmoothedCombiner, TrainedCombiner
from fairseq_knn.combiners.loading import TRAINED
from fairseq_knn.errors import ConfigurationError

K, D, V = 8, 6, 30


def fresh(kind: str, **options: Any) -> TrainedCombiner:
    made = COMBINERS[kind]
    assert issubclass(made, TrainedCombiner)
    return made.fresh(CombinerSizes(K, D, V, options))


def test_what_is_registered_can_be_made_and_loaded() -> None:
    assert {combiner.kind for combiner in TRAINED} == {"adaptive", "kernel_smoothed", "robust"}
    assert all(COMBINERS[kind].kind == kind for kind in COMBINERS)
    for combiner in TRAINED:
        made = fresh(combiner.kind)
        assert type(made) is combiner
        config = made.config()
        assert config["probability_dim"] == V
        assert config.get("max_k", K) == K
        assert config.get("query_dim", D) == D


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("adaptive", {}, {"form": "joint", "temperature": 10.0, "k": None, "weight": None}),
        (
            "adaptive",
            {"form": "separate", "temperature": None, "fixed_k": 4, "weight": 0.0},
            {"form": "separate", "temperature": None, "k": 4, "weight": 0.0},
        ),
        ("kernel_smoothed", {}, {"kernel": "laplacian", "bandwidth": 10.0}),
        ("kernel_smoothed", {"kernel": "gaussian"}, {"kernel": "gaussian", "bandwidth": 100.0}),
        ("kernel_smoothed", {"bandwidth": 1.0}, {"kernel": "laplacian", "bandwidth": 1.0}),
        ("robust", {}, {"alpha0": 1.0, "beta": 1000.0, "sigma": 0.01}),
        ("robust", {"alpha": 0.5, "beta": 10, "sigma": 0.1}, {"alpha0": 0.5, "beta": 10, "sigma": 0.1}),
    ],
)
def test_options(kind: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    made = fresh(kind, **options)
    assert {name: made.config()[name] for name in expected} == expected
    assert type(made)(**made.config()).config() == made.config()


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        (
            "adaptive",
            {"kernel": "gaussian"},
            "kernel is 'gaussian', but the adaptive combiner has only form, temperature",
        ),
        (
            "kernel_smoothed",
            {"weight": 0.4},
            "weight is 0.4, but the kernel_smoothed combiner has only kernel, bandwidth",
        ),
        ("robust", {"form": "joint"}, "form is 'joint', but the robust combiner has only alpha, beta, sigma"),
    ],
)
def test_an_option_of_another_combiner(kind: str, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{message}.*leave {next(iter(option))} out"):
        fresh(kind, **option)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("adaptive", {"form": "separate", "fixed_k": 3}, "k is fixed to 3, but adaptive"),
        ("adaptive", {"form": "separate", "fixed_k": 0}, "k is fixed to 0, but adaptive"),
        ("adaptive", {"form": "separate", "fixed_k": 16}, "up to 8 neighbours"),
        ("adaptive", {"form": "separate", "weight": 1.5}, "lambda is fixed to 1.5"),
        ("adaptive", {"temperature": 0.0}, "the temperature is 0.0"),
        ("adaptive", {"weight": 0.5}, "the joint form has a fixed temperature and learns k and lambda"),
        (
            "adaptive",
            {"form": "separate", "fixed_k": 2, "weight": 0.5, "temperature": 10.0},
            "all fixed, but that leaves adaptive kNN-MT nothing to train",
        ),
        ("kernel_smoothed", {"bandwidth": 0.0}, "the bandwidth is 0.0, but distances are divided"),
        ("kernel_smoothed", {"bandwidth": math.nan}, "the bandwidth is nan"),
    ],
)
def test_options_out_of_range(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fresh(kind, **options)


@pytest.mark.parametrize(
    ("kernel", "bandwidth", "start"), [("laplacian", None, 10), ("gaussian", None, 100), ("gaussian", 1.0, 1)]
)
def test_kernels_start_with_the_bandwidth(kernel: str, bandwidth: float | None, start: float) -> None:
    combiner = KernelSmoothedCombiner(D, V, kernel, bandwidth)
    with torch.no_grad():
        bandwidth = combiner.log_bandwidth(torch.zeros(2 * D)).exp()
    assert float(bandwidth) == pytest.approx(start)
