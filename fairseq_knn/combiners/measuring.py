"""Figures that tell what a combiner does, summed so that batches, steps and processes can be added up."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fairseq_knn.combiners.base import Mixture
from fairseq_knn.retrieval.neighbours import Neighbours

POSITIONS, HITS, TARGETS = "positions", "hit", "targets"


def measure(mixture: Mixture, neighbours: Neighbours, target: Tensor | None = None) -> dict[str, Tensor]:
    """Sums over the positions that have neighbours, float64 and without a gradient, on the mixture's device.

    Args:
        mixture: of the positions, (..., k).
        neighbours: of the positions, (..., k).
        target: what should follow, int64 (...,), if that is known.

    Returns:
        ``positions``; ``lambda`` and ``lambda_high`` (how often it is above one half); what the combiner measures
        itself (``bandwidth``, ``temperature``); with *target* also ``hit`` (it is among the neighbours) and ``targets``
        (positions it is known for).
    """
    counted = neighbours.found.any(dim=-1, keepdim=True)

    def total(figure: Tensor) -> Tensor:
        return figure.detach().double().masked_fill(~counted, 0.0).sum()

    sums = {
        POSITIONS: counted.double().sum(),
        "lambda": total(mixture.weight),
        "lambda_high": total(mixture.weight > 0.5),
        **{name: total(figure) for name, figure in mixture.measured.items()},
    }
    if target is not None:
        hit = (neighbours.found & (neighbours.values == target.unsqueeze(-1))).any(dim=-1, keepdim=True)
        sums[HITS], sums[TARGETS] = total(hit), sums[POSITIONS]
    return sums


def add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add *more* to *sums*, in place; no number is asked for, so a GPU does not wait."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def means(sums: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Mean of every figure over the positions it was summed over; empty without positions."""
    counts = {name: float(torch.as_tensor(sums.get(name, 0.0))) for name in (POSITIONS, TARGETS)}
    return {
        name: float(value) / counts[TARGETS if name == HITS else POSITIONS]
        for name, value in sums.items()
        if name not in counts and counts[TARGETS if name == HITS else POSITIONS]
    }
