"""Stock cross-entropies from what a cache holds, without logits over V tokens."""

from typing import Any

import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.frozen_base import NarrowedOutput


class NarrowedCriterion:
    """Mixed into the class of a criterion object by :func:`narrow_criterion`; for other outputs it is the stock one."""

    task: Any
    knn_vocabulary: int

    def compute_loss(self, model: Any, net_output: Any, sample: Any, reduce: bool = True) -> tuple[Tensor, Tensor]:
        if not isinstance(net_output, NarrowedOutput):
            stock: tuple[Tensor, Tensor] = super().compute_loss(model, net_output, sample, reduce)  # type: ignore[misc]
            return stock
        kept = self._kept(net_output)
        loss = -net_output.mixed.target[kept]
        if epsilon := getattr(self, "eps", 0.0):
            share = epsilon / (self.knn_vocabulary - 1)
            smooth = -net_output.mixed.total[kept]
            smoothed = (1.0 - epsilon - share) * loss + share * smooth
        else:
            smoothed = loss
        return (smoothed.sum(), loss.sum()) if reduce else (smoothed, loss)

    def compute_accuracy(self, model: Any, net_output: Any, sample: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(net_output, NarrowedOutput):
            stock: tuple[Tensor, Tensor] = super().compute_accuracy(model, net_output, sample)  # type: ignore[misc]
            return stock
        kept = self._kept(net_output)
        return net_output.mixed.hit[kept].sum(), kept.sum()

    def _kept(self, net_output: NarrowedOutput) -> Tensor:
        """Which of the positions count, bool (n,): all but those of ``--ignore-prefix-size``."""
        real = net_output.real
        counted = torch.ones_like(real)
        counted[:, : getattr(self, "ignore_prefix_size", 0)] = False
        return counted[real]


_classes: dict[type, type] = {}


def narrow_criterion(criterion: Any, vocabulary: int) -> None:
    """Let a stock criterion compute its loss from a cache.

    Args:
        criterion: ``cross_entropy`` or ``label_smoothed_cross_entropy``.
        vocabulary: number of target symbols, V.

    Raises:
        ConfigurationError: it is another one.
    """
    stock = type(criterion)
    if stock not in (CrossEntropyCriterion, LabelSmoothedCrossEntropyCriterion):
        raise ConfigurationError(
            f"--knn-cache holds what cross_entropy and label_smoothed_cross_entropy need, but the criterion is "
            f"{stock.__name__}: choose one of these, or leave --knn-cache out"
        )
    if stock not in _classes:
        # The same name: it is written into checkpoints, which do not depend on the cache.
        _classes[stock] = type(stock.__name__, (NarrowedCriterion, stock), {"__module__": __name__})
    criterion.__class__ = _classes[stock]
    criterion.knn_vocabulary = vocabulary
