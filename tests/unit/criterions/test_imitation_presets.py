"""The published names, and those of the original code that are refused."""

from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY

from fairseq_knn import plugin
from fairseq_knn.criterions.imitation_config import ImitationConfig, check_imitation, schedule_of
from fairseq_knn.criterions.imitation_presets import REPLACED
from fairseq_knn.errors import ConfigurationError

plugin.register()

PRESETS = {
    "imitation_kd": ("argmax", "mix", "transcript"),
    "imit_kd": ("argmax", "mix", "transcript"),
    "imit_kd_CE": ("full", "mix", "transcript"),
    "imit_kd_ast": ("full", "mix", "audio"),
    "imit_kd_ast_pure_kd": ("full", "reference", "audio"),
    "kd": ("full", "reference", "transcript"),
    "imit_pipeline_nmt_training": ("full", "mix", "transcript"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_defaults_of_presets(name: str) -> None:
    config: Any = CRITERION_DATACLASS_REGISTRY[name]()
    assert isinstance(config, ImitationConfig)
    assert (config.kd_expert_output, config.kd_context, config.kd_expert_input) == PRESETS[name]
    check_imitation(config)


@pytest.mark.parametrize("name", REPLACED)
def test_other_names_of_the_original_code(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--criterion {name} of the original code") as told:
        CRITERION_REGISTRY[name].build_criterion(CRITERION_DATACLASS_REGISTRY[name](), SimpleNamespace())
    named = str(told.value).partition("--criterion ")[2].partition("--criterion ")[2].split()
    assert not named or named[0].strip(",:") in PRESETS


def config(**settings: Any) -> ImitationConfig:
    return ImitationConfig(**{"max_update": 100, "max_epoch": 0, "update_freq": [1], **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kd_topk": 0}, "--kd-topk is 0"),
        ({"kd_rollout_topk": -1}, "--kd-rollout-topk is -1"),
        ({"kd_pool": 0}, "--kd-pool is 0"),
        ({"ignore_prefix_size": -1}, "--ignore-prefix-size is -1"),
        ({"kd_max_oov": 1.5}, "--kd-max-oov is 1.5"),
        ({"kd_cache": "cache", "kd_expert_output": "full"}, "--kd-expert-output is full"),
        ({"kd_cache": "cache", "kd_context": "student"}, "--kd-context is student"),
        ({"kd_rollout_topk": 3, "kd_context": "reference"}, "--kd-rollout-topk is about"),
        ({"kd_pool": 3, "kd_context": "reference"}, "--kd-pool is about"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_imitation(config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_update": 0}, "neither of them is given"),
        ({"max_epoch": 5}, "both --max-update and --max-epoch are given"),
        ({"beta_schedule": "constant"}, "pass --beta-value"),
        ({"kd_context": "student", "beta_value": 0.5}, "--kd-context is student"),
    ],
)
def test_schedules_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        schedule_of(config(**settings))


@pytest.mark.parametrize(
    ("settings", "beta"),
    [
        ({"kd_context": "reference", "max_update": 0}, 1.0),
        ({"kd_context": "student", "max_update": 0}, 0.0),
        ({"beta_schedule": "constant", "beta_value": 0.0, "max_update": 0}, 0.0),
        ({"beta_schedule": "linear"}, 0.5),
        ({}, 200**-0.5),
    ],
)
def test_beta_in_the_middle(settings: dict[str, Any], beta: float) -> None:
    assert schedule_of(config(**settings)).at(0.5) == pytest.approx(beta)
