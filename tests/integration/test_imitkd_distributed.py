"""Two processes that imitate together do what one alone does."""

import re
from pathlib import Path

import torch

from tests import imitation, speech
from tests.integration.ranks import Planned, together

# Fifteen batches: the last update of an epoch has three, so one process gets an empty one.
COMMON = (
    *("--batch-size", "8", "--max-update", "8", "--save-interval-updates", "3", "--log-interval", "1"),
    *("--conv-kernel-sizes", "1,1", "--disable-validation"),  # wider ones hear what utterances are padded with
)
PAIR = (*COMMON, "--update-freq", "2", "--kd-pool", "2", "--ddp-backend", "pytorch_ddp")


def logged(log: str, name: str) -> list[float]:
    return [float(found) for found in re.findall(rf"\b{name}=([-\d.e]+)", log)]


def test_two_processes(tmp_path: Path) -> None:
    """The same sentences are the student's, beta is the same in both, the cache is filled by one of them; and a run
    that was interrupted ends where one ends that was not."""
    world = speech.write(tmp_path / "data", {"train": 120, "valid": 8})
    expert = imitation.train_expert(tmp_path / "expert", imitation.write_text(tmp_path / "text", world), updates=50)
    given = [str(world.data), str(expert)]
    cached = (*PAIR, "--kd-cache", str(tmp_path / "cache"))
    runs = [Planned("straight", "imitation", str(tmp_path / "straight"), given, cached)]
    kept = str(tmp_path / "straight" / "checkpoint_1_3.pt")
    runs.append(Planned("resumed", "imitation", str(tmp_path / "resumed"), given, PAIR, kept))
    together(tmp_path / "plan.json", runs)
    alone = imitation.train(tmp_path / "alone", world, expert, *COMMON, "--update-freq", 4)

    pair, resumed = ((tmp_path / f"{name}.0.log").read_text(encoding="utf-8") for name in ("straight", "resumed"))
    whole = [update for update in range(8) if update % 4 != 3]  # in others stock counts what it fills up with
    shares = [logged(log, "kd_student_share") for log in (pair, alone.log)]
    assert [shares[0][update] for update in whole] == [shares[1][update] for update in whole]
    beta = [round(200 ** (-update / 8), 4) for update in range(8)]
    assert logged(pair, "kd_beta") == beta
    assert logged(resumed, "kd_beta") == beta[3:]
    assert sum("asking the expert" in (tmp_path / f"straight.{rank}.log").read_text() for rank in (0, 1)) == 1
    together_, again, one = (
        imitation.parameters(tmp_path / name / "checkpoint_last.pt") for name in ("straight", "resumed", "alone")
    )
    for name, value in together_.items():
        assert torch.equal(value, again[name]), name
        torch.testing.assert_close(value, one[name], atol=1e-3, rtol=1e-3)
