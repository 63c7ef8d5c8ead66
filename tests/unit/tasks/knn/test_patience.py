"""What stock keeps only in memory about how long training has been waiting is put back."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq_cli.train import should_stop_early
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fairseq_knn.tasks.knn.patience import patience, restore_patience


def trainer(bad_epochs: int = 0, *, plateau: bool = True) -> Any:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, patience=2, cooldown=3)
    for _ in range(1 + bad_epochs):
        schedule.step(1.0)
    return SimpleNamespace(lr_scheduler=SimpleNamespace(lr_scheduler=schedule) if plateau else SimpleNamespace())


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("best", "num_runs"):
        monkeypatch.setattr(should_stop_early, name, None, raising=False)
        monkeypatch.delattr(should_stop_early, name)


def test_a_first_run_has_nothing_to_keep() -> None:
    state = patience(trainer(plateau=False))
    assert state == {"stopping": {}, "plateau": {}}
    restore_patience(trainer(plateau=False), state)
    assert not hasattr(should_stop_early, "best")


def test_state_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = SimpleNamespace(
        checkpoint=SimpleNamespace(patience=2, maximize_best_checkpoint_metric=False), dataset=SimpleNamespace()
    )
    assert [should_stop_early(cfg, loss) for loss in (1.0, 2.0)] == [False, False]
    state = patience(trainer(2))
    assert state["stopping"] == {"best": 1.0, "num_runs": 1}
    assert state["plateau"]["num_bad_epochs"] == 2
    monkeypatch.delattr(should_stop_early, "best")
    monkeypatch.delattr(should_stop_early, "num_runs")
    fresh = trainer()
    restore_patience(fresh, state)
    assert should_stop_early(cfg, 3.0)
    schedule = fresh.lr_scheduler.lr_scheduler
    schedule.step(1.0)  # the third bad epoch
    assert schedule.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_another_schedule_than_the_checkpoint_had() -> None:
    restore_patience(trainer(plateau=False), patience(trainer(2)))
    fresh = trainer()
    restore_patience(fresh, patience(trainer(plateau=False)))
    assert fresh.lr_scheduler.lr_scheduler.num_bad_epochs == 0
