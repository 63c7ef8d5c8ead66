"""Gradients of a language's loss, on a few of its sentences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import FairseqDataset, data_utils
from torch import Tensor, nn

from fairseq_knn.sampling.gradients import Gradient, gradient, parameters_of, weighted_sum
from fairseq_knn.tasks.dds.language import Language

# Of a batch for a gradient, as in the authors' program: at most this many sentences, and no more once there are this
# many tokens.
SENTENCES = 8
TOKENS = 1200


def drawn(language: Language, batches: int, generator: np.random.Generator) -> list[list[int]]:
    """Batches of a language's sentences drawn at random, no sentence twice.

    Args:
        language: which.
        batches: how many; fewer where there are not enough sentences.
        generator: of the drawing.
    """
    count = min(len(language.members), batches * SENTENCES)
    chosen = language.members[generator.choice(len(language.members), count, replace=False)]
    packed: list[list[int]] = []
    for first in range(0, count, SENTENCES):
        batch: list[int] = []
        tokens = 0
        for index in chosen[first : first + SENTENCES]:
            if tokens >= TOKENS:
                break
            batch.append(int(index))
            tokens += int(np.max(language.dataset.num_tokens(index)))
        packed.append(batch)
    return packed


class LanguageGradients:
    """Computes gradients of the training loss per target token.

    The model is in whatever mode it is in; its ``.grad`` stays as it is.

    Args:
        model: itself, not wrapped for distributed training.
        criterion: of the training.
    """

    def __init__(self, model: nn.Module, criterion: nn.Module) -> None:
        self.model, self._criterion = model, criterion
        self.parameters = parameters_of(model)

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    def compute(self, dataset: FairseqDataset, batches: Sequence[Sequence[int]], seed: int) -> Gradient:
        """Gradient of the mean loss per target token over some batches, a tensor for every one of ``parameters``.

        Args:
            dataset: of the sentences.
            batches: sentences of each.
            seed: of what reading a sentence may do at random.
        """
        total: Gradient | None = None
        tokens = 0.0
        for loss, size in self._losses(dataset, batches, seed):
            total = weighted_sum(total, 1.0, gradient(loss, self.parameters))
            tokens += size
        assert total is not None
        return [None if part is None else part.div_(tokens) for part in total]

    @torch.no_grad()
    def loss(self, dataset: FairseqDataset, batches: Sequence[Sequence[int]], seed: int) -> float:
        """The mean loss per target token alone; arguments as of :meth:`compute`."""
        losses, sizes = zip(*((float(loss), size) for loss, size in self._losses(dataset, batches, seed)), strict=True)
        return float(sum(losses) / sum(sizes))

    def _losses(
        self, dataset: FairseqDataset, batches: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[Tensor, float]]:
        """Sum of the loss over each batch, and over how many tokens."""
        for number, sentences in enumerate(batches):
            with data_utils.numpy_seed(seed, number):
                sample = self.prepared(dataset.collater([dataset[index] for index in sentences]))
            loss, size, _ = self._criterion(self.model, sample)
            yield loss, float(size)

    def prepared(self, sample: Any) -> Any:
        """A batch where the model is."""
        return utils.move_to_cuda(sample, self.device) if self.device.type == "cuda" else sample
