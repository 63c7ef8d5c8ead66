"""Two processes that train together draw the same languages, and learn the same probabilities."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import languages
from tests.integration.ranks import Planned, together

SIZES = {"aa": 120, "bb": 40, "cc": 20}
COMMON = (
    *("--max-update", "12", "--update-language-sampling", "3", "--data-actor", "base", "--data-actor-lr", "0.05"),
    *("--datasize-t", "1", "--save-interval-updates", "5"),
)
RUNS = {
    "multidds-s": (*COMMON, "--data-actor-multilin", "--ddp-backend", "legacy_ddp"),
    "multidds": (*COMMON, "--ddp-backend", "pytorch_ddp", "--sample-instance"),
    "half": (*COMMON, "--data-actor-multilin", "--ddp-backend", "pytorch_ddp", "--fp16", "--memory-efficient-fp16"),
    "selected": (
        *("--max-epoch", "3", "--data-actor", "transformer", "--data-actor-lr", "0.001", "--data-actor-step-update"),
        *("--data-filter-percentage", "0.2", "--select-by-dds-epoch", "3", "--ddp-backend", "pytorch_ddp"),
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run by two processes, and one resumed."""
    root = tmp_path_factory.mktemp("together")
    data = languages.write(root / "data", SIZES)
    given = [str(data), list(SIZES)]
    runs = [Planned(name, "languages", str(root / name), given, arguments) for name, arguments in RUNS.items()]
    resumed = str(root / "resumed"), given, RUNS["multidds-s"]
    runs.append(Planned("resumed", "languages", *resumed, str(root / "multidds-s" / "checkpoint_1_5.pt")))
    together(root / "plan.json", runs)
    return root


def rounds(root: Path, name: str, rank: int) -> list[str]:
    lines = (root / f"{name}.{rank}.log").read_text(encoding="utf-8").splitlines()
    return [line.partition('"p": ')[2].partition('"development_loss"')[0] for line in lines if "data actor: {" in line]


@pytest.mark.parametrize("name", ["multidds-s", "multidds", "half"])
def test_the_processes_agree(name: str, trained: Path) -> None:
    """On probabilities and rewards, to the last digit that is shown."""
    one, other = rounds(trained, name, 0), rounds(trained, name, 1)
    assert len(one) == 4
    assert one == other


def test_two_processes_go_on_where_they_were(trained: Path) -> None:
    def content(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(trained / name / "checkpoint_last.pt", weights_only=True)
        return loaded

    straight, resumed = content("multidds-s"), content("resumed")
    for name, tensor in straight["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name
    for key in ("train_iterator", "TranslationMultiDdsTask"):
        assert str(straight["extra_state"][key]) == str(resumed["extra_state"][key])
    assert rounds(trained, "multidds-s", 1)[1:] == rounds(trained, "resumed", 1)


def test_the_processes_leave_out_the_same_sentences(trained: Path) -> None:
    kept = [
        [line for line in (trained / f"selected.{rank}.log").read_text(encoding="utf-8").splitlines() if "kept" in line]
        for rank in (0, 1)
    ]
    assert len(kept[0]) == 3
    assert kept[0] == kept[1]
