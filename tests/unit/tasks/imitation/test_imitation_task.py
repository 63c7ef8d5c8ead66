"""What tasks of imitation tell the criterion about a batch."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn.criterions.expert_beliefs import ExpertBeliefs
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.imitation_task import ImitationTask

PAD = 1


class Stock:
    """A stock task, which gives the batch back."""

    def train_step(self, sample: Any, *arguments: Any) -> Any:
        return sample

    def optimizer_step(self, optimizer: Any, model: torch.nn.Module, update_num: int) -> None:
        optimizer.step()

    def filter_indices_by_size(self, indices: Any, *arguments: Any) -> Any:
        return indices


class Task(ImitationTask, Stock):
    """With a criterion whose update is looked at."""

    _imitation: Any = SimpleNamespace(update=0)


class NoCache:
    """Of no sentence at all."""

    def beliefs(self, sentences: list[int]) -> Any:
        raise IndexError(sentences)


def test_what_fills_up_an_update_is_not_looked_for_in_the_cache() -> None:
    """After a validation stock fills up with development data, whose sentences have other numbers."""
    prefix = torch.tensor([[2, 5, 6]])
    sample = {"expert_input": {}, "sentence": torch.tensor([99])}
    config: Any = SimpleNamespace(kd_expert_input="transcript", kd_expert_output="argmax", kd_topk=8)
    expert: Any = SimpleNamespace(beliefs=lambda source, prefix, output, k: "asked")
    beliefs = ExpertBeliefs(expert, config, PAD)
    beliefs.cache = NoCache()  # type: ignore[assignment]
    task = Task()
    filler = task.train_step(sample, torch.nn.Module(), None, None, 7, ignore_grad=True)
    assert task._imitation.update == 7
    own = torch.tensor([False])
    assert beliefs.of(filler, prefix, own) == "asked"  # type: ignore[comparison-overlap]
    real = task.train_step(sample, torch.nn.Module(), None, None, 8)
    assert real is sample


def test_validation_after_an_update_is_told_that_it_is_done() -> None:
    steps: list[int] = []
    task: Any = Task()
    task._imitation = SimpleNamespace(update=11)
    optimizer = SimpleNamespace(step=lambda: steps.append(task._imitation.update))
    task.optimizer_step(optimizer, model=torch.nn.Module(), update_num=11)
    assert steps == [11]
    assert task._imitation.update == 12
    task._imitation = None  # a stock criterion
    task.optimizer_step(SimpleNamespace(step=lambda: steps.append(0)), model=torch.nn.Module(), update_num=12)
    assert steps == [11, 0]


def test_what_is_too_long_is_told_unless_it_is_skipped() -> None:
    task: Any = Task()
    lengths = np.array([3, 9, 4, 7])
    dataset = SimpleNamespace(
        filter_indices_by_size=lambda indices, most: (
            [i for i in indices if lengths[i] <= most],
            [i for i in indices if lengths[i] > most],
        )
    )
    indices = np.arange(4)[::-1]
    message = r"^2 sentences are longer than the 6 positions .* \(the first: \[1, 3\]\): pass --skip-invalid-size"
    with pytest.raises(ConfigurationError, match=message):
        task.filter_indices_by_size(indices, dataset, 6)
    assert task.filter_indices_by_size(indices, dataset, 6, True) is indices
    assert task.filter_indices_by_size(indices, dataset, 9) is indices
