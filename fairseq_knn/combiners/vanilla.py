"""Vanilla kNN-MT (Khandelwal et al. 2021, arXiv 2010.00710, equations 2 and 3)."""

import torch
from torch import Tensor

from fairseq_knn.combiners.base import Combiner, Mixture
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval.neighbours import Neighbours


class VanillaCombiner(Combiner):
    """Softmax over negative squared distances, and one fixed interpolation weight.

    ``p(y) = lambda * sum_i softmax(-d / T)_i [v_i = y] + (1 - lambda) * p_model(y)``

    Args:
        weight: lambda, the weight of the neighbours, in [0, 1].
        temperature: T > 0; the larger, the more even the neighbours.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    kind = "vanilla"

    def __init__(self, weight: float = 0.7, temperature: float = 10.0) -> None:
        if not 0 <= weight <= 1:
            raise ConfigurationError(
                f"lambda is {weight}, but it is the weight of the neighbours: choose --knn-lambda between 0 "
                "(the model alone) and 1 (the neighbours alone)"
            )
        if not 0 < temperature < float("inf"):
            raise ConfigurationError(
                f"the temperature is {temperature}, but distances are divided by it: choose a finite "
                "--knn-temperature above 0"
            )
        self.weight = weight
        self.temperature = temperature

    @property
    def ignores_neighbours(self) -> bool:
        return self.weight == 0

    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        found = neighbours.found
        distances = neighbours.distances
        # Relative to the nearest: -d / T itself would round away what tells far neighbours apart.
        scores = (distances.amin(dim=-1, keepdim=True) - distances) / self.temperature
        scores = scores.masked_fill(~found, -torch.inf)
        any_found = found.any(dim=-1, keepdim=True)
        log_weights = torch.where(any_found, scores, 0.0).log_softmax(dim=-1).masked_fill(~found, -torch.inf)
        return Mixture(log_weights, any_found * self.weight)
