"""The documentation says what the code does."""

import importlib
import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fairseq_knn.cli.main import COMMANDS
from fairseq_knn.combiners import AdaptiveCombiner, KernelSmoothedCombiner, RobustCombiner
from fairseq_knn.combiners.kernel_smoothed import KERNELS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def documented_flags() -> dict[str, str]:
    rows = re.findall(r"^\| `(--knn-[a-z-]+)` \|([^|]*)\|", (ROOT / "docs" / "flags.md").read_text(), re.MULTILINE)
    return {flag: default.strip() for flag, default in rows}


def default_settings() -> dict[str, Any]:
    """What every flag is that nobody gives; ``None`` where that depends on more."""
    from fairseq_knn.tasks.knn.config import KnnConfig, complete

    config = complete(KnnConfig())
    settings = {f.name: getattr(config, f.name) for f in fields(KnnConfig) if f.name.startswith("knn_")}

    def of(combiner: type, argument: str) -> Any:
        return inspect.signature(combiner).parameters[argument].default

    def kind(trainable: bool) -> str:
        return "trainable" if trainable else "fixed"

    settings |= {
        "knn_k": KnnConfig.usual_k,
        # Combiners have defaults of their own.
        "knn_kernel": of(KernelSmoothedCombiner, "kernel"),
        "knn_adaptive_form": of(AdaptiveCombiner, "form"),
        "knn_k_type": kind(of(AdaptiveCombiner, "k") is None),
        "knn_lambda_type": kind(of(AdaptiveCombiner, "weight") is None),
        "knn_temperature_type": kind(of(AdaptiveCombiner, "temperature") is None),
        "knn_noise_beta": of(RobustCombiner, "beta"),
    }
    return {f"--{name.replace('_', '-')}": default for name, default in settings.items()}


def test_flags_page_lists_every_flag_with_its_default() -> None:
    documented, settings = documented_flags(), default_settings()
    assert documented.keys() == settings.keys()
    assert documented["--knn-bandwidth"] == ", ".join(f"{start:g} (`{kernel}`)" for kernel, start in KERNELS.items())
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


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, section in re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", page.read_text()):
        linked = page.parent / target
        assert linked.exists(), target
        if section:
            assert section in sections(linked), f"{target}#{section}"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module(name)


def test_pages_show_the_measured_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    readme_table = example("readme_table", monkeypatch)
    for marker, table in readme_table.tables().items():
        if marker != readme_table.GAINS:
            assert table == (ROOT / "results" / f"{marker}.md").read_text()
        page = (ROOT / readme_table.PAGES[marker]).read_text()
        assert readme_table.between_markers(page, marker, table) == page, marker


def test_results_have_the_promised_columns() -> None:
    promised = {"system", "domain", "split", "bleu", "chrf", "signature", "sentences", "tokens_per_s", "entries"}
    for row in json.loads((ROOT / "results" / "quickstart.json").read_text())["rows"]:
        assert promised <= row.keys()
