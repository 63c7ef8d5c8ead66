"""The documentation says what the code does."""

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from fairseq_knn.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def documented_flags() -> dict[str, str]:
    rows = re.findall(r"^\| `(--knn-[a-z-]+)` \|([^|]*)\|", (ROOT / "docs" / "flags.md").read_text(), re.MULTILINE)
    return {flag: default.strip() for flag, default in rows}


def test_flags_page_lists_every_flag_with_its_default() -> None:
    from fairseq_knn.tasks.knn_config import KnnConfig

    documented = documented_flags()
    settings = {f"--{f.name.replace('_', '-')}": f.default for f in fields(KnnConfig) if f.name.startswith("knn_")}
    assert documented.keys() == settings.keys()
    for flag, default in settings.items():
        told = documented[flag]
        if default is False:
            assert told == "off", flag
        elif default is not None:
            assert told == f"`{default}`", flag


def test_flags_page_lists_every_command() -> None:
    page = (ROOT / "docs" / "flags.md").read_text()
    for command in COMMANDS:
        assert re.search(rf"^\| `{command.NAME}[ `]", page, re.MULTILINE), command.NAME


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module(name)


def test_readme_shows_the_measured_table(monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart, readme_table = example("quickstart", monkeypatch), example("readme_table", monkeypatch)
    rows = json.loads((ROOT / "results" / "quickstart.json").read_text())["rows"]
    readme = (ROOT / "README.md").read_text()
    table = quickstart.markdown(rows)
    assert table == (ROOT / "results" / "quickstart.md").read_text()
    assert readme_table.between_markers(readme, readme_table.MARKER, table) == readme


def test_results_have_the_promised_columns() -> None:
    promised = {"system", "domain", "split", "bleu", "chrf", "signature", "sentences", "tokens_per_s", "entries"}
    for row in json.loads((ROOT / "results" / "quickstart.json").read_text())["rows"]:
        assert promised <= row.keys()
