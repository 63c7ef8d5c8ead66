"""Two processes that train together on windows of sentence pairs."""

from pathlib import Path

import torch

from tests.integration.ranks import Planned, together


def test_two_processes_go_on_where_they_were(tmp_path: Path) -> None:
    common = ("--shuffle-window", "100", "--update-freq", "2", "--max-epoch", "4", "--ddp-backend", "legacy_ddp")
    straight = Planned("straight", "pairs", str(tmp_path / "straight"), [], (*common, "--save-interval-updates", "5"))
    saved = str(tmp_path / "straight" / "checkpoint_2_5.pt")  # within an epoch of three updates
    resumed = Planned("resumed", "pairs", str(tmp_path / "resumed"), [], common, saved)
    together(tmp_path / "plan.json", [straight, resumed])
    one, other = (
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True) for name in ("straight", "resumed")
    )
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name]), name
    assert one["extra_state"]["train_iterator"] == other["extra_state"]["train_iterator"]
    assert one["extra_state"]["train_iterator"]["epoch"] == 5
