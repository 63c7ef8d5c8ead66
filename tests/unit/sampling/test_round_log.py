"""The line a data actor's round leaves in the log, written and read."""

import json
from dataclasses import replace

import pytest

from fairseq_knn.sampling.round_log import MARK, Round, read_rounds

ROUND = Round(
    update=25,
    round=1,
    seconds=0.12345,
    p={"aze-eng": 0.12345678, "ces-eng": 0.87654322},
    reward={"aze-eng": 0.5, "ces-eng": -0.25},
    development_loss={"ces-eng": 7.123456},
    similarity={"ces-eng": {"aze-eng": 0.123456, "ces-eng": 1.0}},
)


def logged(*updates: int) -> list[str]:
    return [f"2026-01-01 | INFO | fairseq_knn | {replace(ROUND, update=update).line()}" for update in updates]


def test_line() -> None:
    assert ROUND.line().startswith("data actor: {")
    assert json.loads(ROUND.line().removeprefix(MARK)) == {
        "update": 25,
        "round": 1,
        "seconds": 0.123,
        "p": {"aze-eng": 0.123457, "ces-eng": 0.876543},
        "reward": {"aze-eng": 0.5, "ces-eng": -0.25},
        "development_loss": {"ces-eng": 7.1235},
        "similarity": {"ces-eng": {"aze-eng": 0.1235, "ces-eng": 1.0}},
    }


def test_what_is_written_is_read() -> None:
    lines = ["begin", *logged(25), "2026-01-01 | INFO | train_inner | epoch 001: loss=9", *logged(50), ""]
    rounds = read_rounds(lines)
    assert [one.update for one in rounds] == [25, 50]
    assert rounds[0] == read_rounds([ROUND.line()])[0]
    assert read_rounds(["begin", "end"]) == []


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        (((25, 50, 75), (75, 100)), [25, 50, 75, 100]),
        # what the first run did after the checkpoint that the second began from is void, repeated or not
        (((25, 50, 75, 100), (60, 110)), [25, 50, 60, 110]),
        (((25, 50), (25,)), [25]),
    ],
)
def test_the_later_run_counts(runs: tuple[tuple[int, ...], ...], kept: list[int]) -> None:
    lines = [line for run in runs for line in logged(*run)]
    assert [one.update for one in read_rounds(lines)] == kept


def test_the_later_of_two_rounds() -> None:
    again = replace(ROUND, p={"aze-eng": 0.25, "ces-eng": 0.75})
    assert [dict(one.p) for one in read_rounds([ROUND.line(), again.line()])] == [{"aze-eng": 0.25, "ces-eng": 0.75}]


@pytest.mark.parametrize("line", [ROUND.line()[:-20], MARK, f'{MARK}{{"update": 3}}', f"{MARK}[1]"])
def test_an_unfinished_line_is_passed_over(line: str) -> None:
    assert [one.update for one in read_rounds([*logged(25), line, *logged(50)])] == [25, 50]
