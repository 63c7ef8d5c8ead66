"""What the benchmarks read and write; nothing is timed here."""

import json
from pathlib import Path

import pytest

from benchmarks.rounds import CommandFailed, Meter, as_json, ratios, spread
from benchmarks.stock_output import read_run, require_equal
from benchmarks.table import markdown, with_table

ROOT = Path(__file__).parents[2]
TRANSLATED = (
    "2026-01-01 00:00:00 | INFO | fairseq_cli.generate | NOTE: hypothesis and token scores are output in base 2\n"
    "2026-01-01 00:00:00 | INFO | fairseq_cli.generate | Translated 1,256 sentences (32,656 tokens) in 34.1s "
    "(36.83 sentences/s, 957.65 tokens/s)\n"
)
CLOSING = (
    "2026-01-01 00:00:00 | INFO | fairseq_knn | 1,256 of 1,256 sentences of 'test' processed | "
    '{"sentences": 1256, "left_out": 0, "knn_search_ms": 16.5, "knn_searches": 208}\n'
)


def test_page_shows_the_measured_tables() -> None:
    results = json.loads((ROOT / "results" / "benchmarks.json").read_text())
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert with_table(page, markdown(results)) == page


def test_run_is_read() -> None:
    base = {"sentences": 1256, "tokens": 32656, "tokens_per_s": 957.65, "seconds": 40.12}
    assert read_run(TRANSLATED, 40.123) == base
    assert read_run(CLOSING + TRANSLATED, 40.123) == {**base, "search_ms": 16.5}


def test_run_without_result_is_refused() -> None:
    with pytest.raises(CommandFailed, match="did not say"):
        read_run(CLOSING, 1.0)


def test_unequal_work_is_refused() -> None:
    require_equal([{"base": {"tokens": 4}, "kNN-MT": {"tokens": 4}}], "tokens")
    with pytest.raises(CommandFailed, match="cannot be compared"):
        require_equal([{"base": {"tokens": 4}, "kNN-MT": {"tokens": 5}}], "tokens")


def test_ratios_are_of_the_same_round() -> None:
    rounds = [{"base": {"speed": base}, "kNN-MT": {"speed": knn}} for base, knn in ((10, 9), (100, 80), (10, 7))]
    assert as_json(ratios(rounds, "kNN-MT", "base", "speed")) == {"median": 0.8, "low": 0.7, "high": 0.9}
    assert as_json(spread(rounds, "base", "speed")) == {"median": 10, "low": 10, "high": 100}


def test_finished_rounds_are_kept(tmp_path: Path) -> None:
    meter = Meter(tmp_path, {"PATH": "/usr/bin:/bin"}, rounds=2, prefix="env")
    counter = tmp_path / "counter"
    commands = {"count": f"echo run >> {counter}; echo loading; wc -l < {counter}"}

    def read(output: str, seconds: float) -> dict[str, int]:
        assert seconds >= 0
        return {"runs": int(output.splitlines()[-1])}

    assert not meter.finished("counting", commands)
    first = meter.measure("counting", commands, read, after="loading")
    assert first == [{"count": {"runs": 1}}, {"count": {"runs": 2}}]
    assert meter.finished("counting", commands)
    assert meter.measure("counting", commands, read) == first
    other = {"count": f"{commands['count']} "}
    assert not meter.finished("counting", other)


def test_failing_command_is_reported(tmp_path: Path) -> None:
    meter = Meter(tmp_path, {"PATH": "/usr/bin:/bin"}, rounds=1, prefix="")
    with pytest.raises(CommandFailed, match=r"no such luck\n.*status 3"):
        meter.measure("failing", {"it": "echo no such luck; exit 3"}, lambda output, seconds: {})
