"""Pairs that are left out."""

import pytest

from fairseq_knn.recipe.pairs.filtering import REASONS, described, fault

LONG = "this is a sentence of more than thirty characters"


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("Go.", "Va !", None),
        ("", "Va !", "blank"),
        ("Go.", "", "blank"),
        ("one two three four five six", "un", "long"),
        ("un", "one two three four five six", "long"),
        (LONG.replace(" ", ""), "court", "ratio"),
        ("OK", "Je suis tout d'accord", None),  # too short for a ratio
        ("Tom!", "Tom !", None),
        ("Hello, my dear Tom", "Hello, my dear Tom", "same"),
        ("Hello, my dear Tom!", "hello my dear tom", "same"),
        ("...", "…", None),
    ],
)
def test_reasons(source: str, target: str, reason: str | None) -> None:
    assert fault(source, target, max_words=5, max_ratio=3) == reason


def test_every_reason_has_words() -> None:
    assert all(described(reason, 100, 3.0) for reason in REASONS)
