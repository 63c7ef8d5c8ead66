"""The demonstration of speech translation: what it reads in the output of programs, its table, what it asks models."""

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
GENERATED = """\
S-1\tein Haus
P-1\t-1.0 -2.0
D-1\t-0.5\ta small house
P-0\t-3.0
D-0\t-0.25\tthe cat
"""


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("demo_st")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("st_models")


def row(system: str, **changes: Any) -> dict[str, Any]:
    return {
        "system": system,
        "nll_test": 2.345,
        "bleu_test": 12.34,
        "bleu_real": 0.56,
        "agreement": 0.678,
        "updates": 10,
        "seconds_per_update": 0.456,
        "mebibytes": 1234,
        "signature": "sacreBLEU: x",
        **changes,
    }


def test_what_is_generated(demo: ModuleType) -> None:
    assert demo.by_number(GENERATED, demo.TRANSLATION) == ["the cat", "a small house"]
    scores = demo.by_number(GENERATED, demo.SCORES)
    assert demo.nll(scores) == pytest.approx(2 * math.log(2), abs=1e-3)  # bits, of three tokens


def test_training(demo: ModuleType) -> None:
    log = "train | epoch 001 | num_updates 100\ntrain_inner | num_updates=250, lr=1\n"
    made = demo.training(f"{log}# 200.0 s, 125.0 s of processors, 1500 MiB of memory\n")
    assert made == {"updates": 250, "seconds_per_update": 0.5, "mebibytes": 1500}
    assert set(demo.training(None).values()) == {None}


def test_agreement(demo: ModuleType) -> None:
    assert demo.agreement("INFO | odd\nagreement: 0.4321\n") == 0.4321


def test_table(demo: ModuleType) -> None:
    rows = [row("NLL"), row("kNN", agreement=None, seconds_per_update=None, mebibytes=None)]
    table = demo.markdown({"rows": rows, "sentences": {"valid": 5, "test": 6, "real": 7}})
    assert "| NLL | 2.35 | 12.3 | 0.6 | 68% | 0.46 | 1,234 |" in table
    assert "| kNN | 2.35 | 12.3 | 0.6 |  |  |  |" in table
    assert "6 sentences" in table
    assert "7 lines" in table
    without = demo.markdown({"rows": rows, "sentences": {"valid": 5, "test": 6}})
    assert "| NLL | 2.35 | 12.3 | 68% | 0.46 | 1,234 |" in without
    assert "actors" not in without
    for one in (table, without):
        assert len({line.count("|") for line in one.splitlines() if line.startswith("|")}) == 1


def test_manifests(demo: ModuleType, tmp_path: Path) -> None:
    rows = [{"id": "a", "tgt_text": 'say "no"'}, {"id": "b", "tgt_text": "'"}]
    demo.write_manifest(tmp_path / "a.tsv", rows)
    assert (tmp_path / "a.tsv").read_text() == 'id\ttgt_text\na\tsay "no"\nb\t\'\n'
    assert demo.read_manifest(tmp_path / "a.tsv") == rows


def test_students_differ_in_their_criterion_alone(demo: ModuleType, tmp_path: Path) -> None:
    commands = {}
    one = demo.Demo(tmp_path, tmp_path, 1)
    one.flow.run_all = commands.update
    one._students()
    assert list(commands) == [f"train-{student}" for student in demo.STUDENTS]
    for student in demo.STUDENTS:
        words = commands[f"train-{student}"].split()
        assert words[words.index("--criterion") + 1] == student
        assert words[words.index("--max-update") + 1] == str(demo.UPDATES["student"])
        assert ("speech_to_text_imitkd" in words) == ("--expert" in words) == ("kd" in student)


def test_encoder_and_decoder_of_two_models(models: ModuleType) -> None:
    recogniser = {name: torch.zeros(1) for name in ("encoder.a", "encoder.ctc_proj.weight", "decoder.b")}
    translator = {name: torch.ones(1) for name in ("encoder.a", "decoder.b")}
    made = models.started({"cfg": {"a": 1}, "model": recogniser}, {"cfg": {"a": 2}, "model": translator})
    expected = {"encoder.a": recogniser["encoder.a"], "decoder.b": translator["decoder.b"]}
    assert made == {"cfg": {"a": 1}, "model": expected}


def test_first_choices_and_input_of_the_expert(models: ModuleType) -> None:
    class Model(nn.Module):
        def forward(self, prev_output_tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
            return nn.functional.one_hot(prev_output_tokens, 9).float(), None

    prefix = torch.tensor([[2, 5], [2, 7]])
    assert models.first_choices(Model(), {"prev_output_tokens": prefix}).equal(prefix)
    sample = {"net_input": {"prev_output_tokens": prefix}}
    read = models.expert_input([torch.tensor([4, 2]), torch.tensor([6, 7, 2])], sample, pad=1)
    assert read["src_tokens"].tolist() == [[4, 2, 1], [6, 7, 2]]
    assert read["src_lengths"].tolist() == [2, 3]
    assert read["prev_output_tokens"] is prefix
