"""The processes that train together; also where there is one alone."""

import time
from pathlib import Path

import torch
from fairseq.distributed import utils as distributed
from torch import Tensor

from fairseq_knn.errors import UserError

_SECONDS_BETWEEN_LOOKS = 1.0
_PATIENCE = 12 * 3600.0  # seconds


def place_and_number() -> tuple[int, int]:
    """Which of the processes with data of their own this is, and how many there are."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return distributed.get_data_parallel_rank(), distributed.get_data_parallel_world_size()


def sum_of_processes(values: Tensor) -> Tensor:
    """Add up what the processes have, in place."""
    if place_and_number()[1] > 1:
        distributed.all_reduce(values, group=distributed.get_data_parallel_group())
    return values


def mean_of_processes(values: Tensor) -> Tensor:
    """The same divided by the number of processes, in place."""
    return sum_of_processes(values).div_(place_and_number()[1])


def wait_for(path: Path, what: str) -> None:
    """Until the first process has made a file; no collective, whose time limit that could exceed.

    Args:
        path: of the file.
        what: it belongs to, for messages.

    Raises:
        UserError: it takes too long.
    """
    began = time.monotonic()
    while not path.exists():
        if time.monotonic() - began > _PATIENCE:
            raise UserError(
                f"the first process has not finished {what} in {_PATIENCE / 3600:.0f} hours: see its log, and start "
                "again; what is written is kept"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
