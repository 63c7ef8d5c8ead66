"""The processes that train together; also where there is one alone."""

import torch
from fairseq.distributed import utils as distributed
from torch import Tensor


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
