"""How long training has been waiting for something better: stock checkpoints do not hold it."""

import sys
from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

_STOPPING = ("best", "num_runs")
_PLATEAU = ("num_bad_epochs", "cooldown_counter", "last_epoch")


def _stopping() -> Any:
    """The function of fairseq-train on which it keeps its own patience."""
    return getattr(sys.modules.get("fairseq_cli.train"), "should_stop_early", None)


def patience(trainer: Any) -> dict[str, Any]:
    """State of ``--patience`` and of ``reduce_lr_on_plateau``, for a checkpoint."""
    schedule = getattr(trainer.lr_scheduler, "lr_scheduler", None)
    return {
        "stopping": {name: getattr(_stopping(), name) for name in _STOPPING if hasattr(_stopping(), name)},
        "plateau": {name: getattr(schedule, name) for name in _PLATEAU}
        if isinstance(schedule, ReduceLROnPlateau)
        else {},
    }


def restore_patience(trainer: Any, state: Mapping[str, Any]) -> None:
    """Put back what :func:`patience` gave."""
    for name in _STOPPING:
        if name in state["stopping"]:
            setattr(_stopping(), name, state["stopping"][name])
    schedule = getattr(trainer.lr_scheduler, "lr_scheduler", None)
    if isinstance(schedule, ReduceLROnPlateau):
        for name, value in state["plateau"].items():
            setattr(schedule, name, value)
