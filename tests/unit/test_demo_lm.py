"""The demonstration of language models: what it reads in the output of programs, chooses and draws."""

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
OUTPUT = """\
INFO:x:9 of 9 blocks processed | {"knn_search_ms": 5, "knn_searches": 2, "knn_queries": 8, "knn_foss": 0.5}
INFO:fairseq_cli.eval_lm:Evaluated 29,303 tokens in 27.7s (1057.08 tokens/s)
INFO:fairseq_cli.eval_lm:Loss (base 2): 7.2945, Perplexity: 156.99
"""


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("demo_lm")


def test_rows(demo: ModuleType) -> None:
    store = demo.Store("base", Path("store"), 256, 0.8, 10.0)
    walk = demo.Walk(16, clusters=True)
    row = demo.row(OUTPUT, "RetoMaton", "Bible", store, walk)
    assert (row.perplexity, row.tokens, row.tokens_per_s, row.saved, row.search_ms) == (
        156.99,
        29303,
        1057.08,
        0.5,
        1.25,
    )
    assert (row.k, row.knn_lambda, row.temperature, row.min_knns, row.clusters) == (256, 0.8, 10.0, 16, True)
    plain = demo.row("\n".join(OUTPUT.splitlines()[1:]), "base", "Bible")
    assert plain.perplexity == 156.99
    assert {plain.saved, plain.search_ms, plain.k, plain.min_knns, plain.clusters} == {None}
    table = demo.markdown({"rows": [asdict(row), asdict(plain)], "generation": {}})
    assert "| Bible | RetoMaton | 156.99 | 50% | 1057 | 1.25 | 256, 0.8, 10 | 16 |" in table
    assert "| Bible | base | 156.99 |  | 1057 |  |  |  |" in table


def test_the_prompts_are_not_counted(demo: ModuleType) -> None:
    texts = [" ".join(["piece"] * (demo.PROMPT + length)) for length in (3, 5)]
    lines = [f"H-{number}\t-1.5\t{text}" for number, text in enumerate(texts)]
    output = "\n".join([*lines, "Total time: 9 seconds; translation time: 0.4", OUTPUT])
    assert demo.generation(output) == demo.Generation(ms_per_piece=50.0, saved=0.5)


def test_the_best_of_those_that_save_enough(demo: ModuleType) -> None:
    row = demo.row(OUTPUT, "RetoMaton", "Bible", demo.Store("base", Path("store"), 8, 0.5, 1.0), demo.Walk(1, True))
    sweep = [
        replace(row, saved=0.8, perplexity=12.0, min_knns=1),
        replace(row, saved=0.6, perplexity=11.0, min_knns=2),
        replace(row, saved=0.4, perplexity=10.0, min_knns=3),
        replace(row, saved=0.9, perplexity=9.0, min_knns=4, clusters=False),
    ]
    assert demo.best_saving(sweep) == 2
    with pytest.raises(demo.CommandFailed, match="no setting saves 55% of the searches"):
        demo.best_saving(sweep[2:])


def test_picture(demo: ModuleType, tmp_path: Path) -> None:
    rows = json.loads((ROOT / "results" / "demo_lm.json").read_text(encoding="utf-8"))["sweep"]
    demo.draw_sweep(rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.png"]
