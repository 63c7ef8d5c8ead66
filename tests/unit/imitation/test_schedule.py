"""How often the student sees the reference."""

from typing import Any

import numpy as np
import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.schedule import SCHEDULES, BetaSchedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (BetaSchedule("exponential"), [1, 0.0707107, 0.005]),
        (BetaSchedule("exponential", base=10), [1, 0.3162278, 0.1]),
        (BetaSchedule("linear"), [1, 0.5, 0]),
        (BetaSchedule("linear", final=0.2), [1, 0.6, 0.2]),
        (BetaSchedule("linear", final=1.0), [1, 1, 1]),
        (BetaSchedule("constant", value=0.3), [0.3, 0.3, 0.3]),
        (BetaSchedule("constant", value=0.0), [0, 0, 0]),
        (BetaSchedule("constant", value=1.0), [1, 1, 1]),
    ],
)
def test_beginning_middle_and_end(schedule: BetaSchedule, expected: list[float]) -> None:
    assert [schedule.at(progress) for progress in (0, 0.5, 1)] == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_beyond_the_ends_is_at_the_ends(kind: str) -> None:
    schedule = BetaSchedule(kind, value=0.5 if kind == "constant" else None)
    assert schedule.at(-3) == schedule.at(0)
    assert schedule.at(1.5) == schedule.at(1)


def test_the_student_has_four_fifths_of_a_training() -> None:
    schedule = BetaSchedule("exponential")
    share = np.mean([1 - schedule.at((step + 0.5) / 10_000) for step in range(10_000)])
    assert share == pytest.approx(1 - (1 - 1 / 200) / np.log(200), abs=1e-7)
    assert round(share, 3) == 0.812
    assert schedule.at(0.1308) > 0.5 > schedule.at(0.1309)


def test_who_needs_a_horizon() -> None:
    assert BetaSchedule("exponential").needs_horizon
    assert BetaSchedule("linear", final=0.5).needs_horizon
    assert not BetaSchedule("constant", value=0.0).needs_horizon


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "cosine"}, "--beta-schedule 'cosine' is unknown: choose from exponential, linear, constant"),
        ({"kind": "exponential", "base": 1.0}, "--beta-base is 1.0: pass a number above 1"),
        ({"kind": "exponential", "base": float("nan")}, "--beta-base is nan"),
        ({"kind": "exponential", "base": float("inf")}, "--beta-base is inf"),
        ({"kind": "exponential", "final": 0.0}, "--beta-final is a setting of --beta-schedule linear"),
        ({"kind": "exponential", "value": 0.0}, "--beta-value is a setting of --beta-schedule constant"),
        ({"kind": "linear", "final": 1.2}, "--beta-final is 1.2: pass a probability"),
        ({"kind": "linear", "base": 200.0}, "--beta-base is a setting of --beta-schedule exponential, but"),
        ({"kind": "constant"}, "--beta-schedule constant has no value: pass --beta-value"),
        ({"kind": "constant", "value": -0.1}, "--beta-value is -0.1: pass a probability"),
        ({"kind": "constant", "value": float("nan")}, "--beta-value is nan"),
    ],
)
def test_what_does_not_go_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        BetaSchedule(**settings)
