"""Using a model in training for something else."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.undisturbed import undisturbed


class Model(nn.Module):
    """A layer with batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.drop(self.norm(self.layer(x)))
        return output


def test_nothing_is_disturbed() -> None:
    model = Model()
    model.norm.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    buffers = copy.deepcopy(dict(model.named_buffers()))
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
        torch.rand(10)
        model(torch.randn(4, 6))
    assert torch.equal(torch.rand(3), expected)
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    with pytest.raises(RuntimeError, match="stop"), undisturbed(model):
        raise RuntimeError("stop")
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_recurrent_networks() -> None:
    """Their gradients can be computed in it."""
    model = nn.LSTM(3, 4)
    with undisturbed(model):
        output, _ = model(torch.randn(5, 2, 3))
        gradients = torch.autograd.grad(output.sum(), list(model.parameters()))
    assert len(gradients) == 4
    assert model.training
