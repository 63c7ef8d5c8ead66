"""Using a model in training for something else, and leaving no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; every module's own mode and the random generators are as before after it.

    cudnn computes no gradients of recurrent networks in evaluation mode, so it is left out for these.
    """
    modes = {module: module.training for module in model.modules()}
    devices = sorted({parameter.device.index or 0 for parameter in model.parameters() if parameter.is_cuda})
    recurrent = any(isinstance(module, nn.RNNBase) for module in modes)
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent),
    ):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
