"""The demonstration of language sampling: what it reads in the output of programs, and its table."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fairseq_knn.sampling.round_log import Round

ROOT = Path(__file__).parents[2]
TRANSLATED = """\
S-1\tein Haus
D-1\t-0.5\ta small house
D-0\t-0.25\tthe cat sat on the mat
"""


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("demo_dds")


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("workflow")


def log(*rounds: Round) -> str:
    lines = [
        "$ fairseq-train",
        *(f"2026 | INFO | fairseq_knn | {one.line()}" for one in rounds),
        "2026 | INFO | train_inner | epoch 001: 100 / 900 loss=5, num_updates=100, lr=0.003",
        "2026 | INFO | train | epoch 001 | loss 4 | num_updates 120 | lr 0.003",
        "2026 | INFO | fairseq_cli.train | done training in 200.0 seconds",
        "# 210.5 s, 180.2 s of processors",
    ]
    return "".join(f"{line}\n" for line in lines)


def test_scores(demo: ModuleType) -> None:
    references = ["the cat sat on the mat", "a small house"]
    perfect = demo.score(TRANSLATED, references)
    assert (perfect.bleu, perfect.chrf, perfect.sentences) == (100.0, 100.0, 2)
    assert "tok:13a" in perfect.signature
    # in the order of the numbers, not in that of the output
    assert demo.score(TRANSLATED, references[::-1]).bleu < 10
    for lost in (references[:1], [*references, "more"]):
        with pytest.raises(demo.CommandFailed, match=r"2 translations for \d references: sentences were lost"):
            demo.score(TRANSLATED, lost)


def test_training(demo: ModuleType) -> None:
    assert demo.training(log()) == demo.Training(updates=120, seconds=180.2)
    first = Round(50, 1, 4.0, {"aze-eng": 0.5, "ces-eng": 0.5}, {}, {}, {})
    second = Round(100, 2, 6.0, {"aze-eng": 0.6, "ces-eng": 0.4}, {}, {}, {})
    made = demo.training(log(first, second))
    assert (made.updates, made.seconds, made.actor) == (120, 180.2, 0.05)
    assert made.probabilities == {"aze-eng": 0.6, "ces-eng": 0.4}


def test_table(demo: ModuleType) -> None:
    scores = {
        language: demo.Score(bleu=float(number), chrf=10.0 + number, sentences=300, signature="BLEU: x; chrF: y")
        for number, language in enumerate(demo.LANGUAGES)
    }
    rows = [
        demo.row("proportional", scores, demo.Training(120, 180.2)),
        demo.row("MultiDDS-S", scores, demo.Training(120, 201.6, 0.123, {"aze-eng": 1.0})),
    ]
    assert (rows[0]["bleu"], rows[0]["bleu_low_resource"], rows[0]["chrf"]) == (3.5, 0.5, 13.5)
    table = demo.markdown({"rows": rows})
    assert "| system | aze | bel | rus | tur | glg | por | slk | ces | mean | aze and bel | chrF |" in table
    numbers = "0.0 | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 6.0 | 7.0 | 3.5 | 0.5 | 13.5 | 120"
    assert f"| proportional | {numbers} | 180 |  |" in table
    assert f"| MultiDDS-S | {numbers} | 202 | 12% |" in table
    assert "BLEU: x; chrF: y" in table
    columns = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert len(columns) == 1


def test_the_smallest_languages_come_first(demo: ModuleType) -> None:
    assert demo.LANGUAGES[: len(demo.LOW_RESOURCE)] == demo.LOW_RESOURCE
    assert next(iter(demo.SYSTEMS)) == "proportional"


def test_results_have_every_language(demo: ModuleType) -> None:
    content = json.loads((ROOT / "results" / "demo_dds.json").read_text(encoding="utf-8"))
    assert [one["system"] for one in content["rows"]] == [name for name, _ in demo.SYSTEMS.values()]
    for one in content["rows"]:
        assert tuple(one["scores"]) == demo.LANGUAGES
        assert one["updates"] == demo.UPDATES
        assert (one["probabilities"] is None) == (one["actor"] is None)


def test_commands_side_by_side(workflow: ModuleType, tmp_path: Path) -> None:
    """Both are begun before one ends, with a thread each, and what they computed is told apart."""
    flow = workflow.Workflow(tmp_path)
    files = [tmp_path / "a", tmp_path / "b"]
    meet = "touch {} && while [ ! -e {} ]; do sleep .01; done"
    busy = f"{sys.executable} -c 'import time; all(iter(lambda: time.process_time() < .4, False))'"
    commands = {
        "idle": f"{meet.format(*files)}; echo $OMP_NUM_THREADS",
        "busy": f"{meet.format(*files[::-1])}; {busy}",
    }
    outputs = flow.run_all(commands)
    assert outputs["idle"].splitlines()[1] == "1"
    assert workflow.times(outputs["idle"])[1] < 0.4 <= workflow.times(outputs["busy"])[1]
    assert flow.processor_seconds == sum(workflow.times(output)[1] for output in outputs.values())
    assert flow.seconds == sum(workflow.times(output)[0] for output in outputs.values()) / 2
    # with the same words they are done
    assert flow.run_all(commands) == outputs


def test_a_failure_side_by_side(workflow: ModuleType, tmp_path: Path) -> None:
    flow = workflow.Workflow(tmp_path)
    with pytest.raises(workflow.CommandFailed, match=r"\[bad\] ended with status 3"):
        flow.run_all({"good": "true", "bad": "exit 3", "later": "true"}, side_by_side=1)
    assert sorted(path.name for path in flow.logs.iterdir()) == ["bad.failed.log", "good.log"]


def test_a_balanced_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    spm = importlib.import_module("spm")
    lines = [str(number) for number in range(10)]
    assert spm.sample(lines, 4) == ["0", "2", "5", "7"]
    assert spm.sample(lines, 10) == spm.sample(lines, 99) == spm.sample(lines, None) == lines
