"""Perplexity of vanilla mixing for every k, lambda and temperature of a grid, from one retrieval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the model's highest probability, above which a search might be spared; 1 spares none.
THRESHOLDS = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


@dataclass(frozen=True)
class GridPoint:
    """Mean negative log-likelihood (nats per token) of one setting."""

    k: int
    weight: float
    temperature: float
    loss: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class SkipPoint:
    """The same setting without searches where the model is sure.

    Args:
        threshold: probability from which on the model is sure.
        skipped: share of the positions that are not searched.
        loss: mean negative log-likelihood, nats per token.
    """

    threshold: float
    skipped: float
    loss: float


class VanillaGrid:
    """Adds up the loss of the references under every setting.

    Args:
        ks, weights, temperatures: values of k, lambda (below 1: a reference token without neighbours must
            keep a probability) and T.
    """

    def __init__(self, ks: Sequence[int], weights: Sequence[float], temperatures: Sequence[float]) -> None:
        self.ks, self.weights, self.temperatures = list(ks), list(weights), list(temperatures)
        shape = (len(self.ks), len(self.weights), len(self.temperatures), len(THRESHOLDS))
        self._loss = torch.zeros(shape, dtype=torch.float64)
        self._skipped = torch.zeros(len(THRESHOLDS), dtype=torch.int64)
        self._model_loss = 0.0
        self.tokens = 0

    @torch.no_grad()
    def add(self, log_probs: Tensor, highest: Tensor, distances: Tensor, matches: Tensor) -> None:
        """Add reference tokens.

        Args:
            log_probs: the model's log-probability of each, float32 (n,).
            highest: its log-probability of the token it holds most likely, float32 (n,).
            distances: of its neighbours, nearest first, float32 (n, K) with K >= max(ks).
            matches: which neighbours' value is the reference token, bool (n, K).
        """
        found = torch.isfinite(distances)
        nearest = distances[:, :1].masked_fill(~found[:, :1], 0.0)
        device = distances.device
        take = torch.tensor(self.ks, device=device) - 1
        keep = torch.log1p(-torch.tensor(self.weights, device=device))
        use = torch.log(torch.tensor(self.weights, device=device))
        skipped = highest.unsqueeze(1) >= torch.tensor(THRESHOLDS, device=device).log()
        skipped[:, 0] = False  # no threshold at all
        searched = (~skipped).double()
        unsearched_loss = -(log_probs.double() @ skipped.double())
        for t, temperature in enumerate(self.temperatures):
            # Relative to the nearest, as the combiner does it.
            scores = ((nearest - distances) / temperature).masked_fill(~found, -torch.inf)
            mass = scores.masked_fill(~matches, -torch.inf).logcumsumexp(dim=-1)[:, take]
            neighbours = (mass - scores.logcumsumexp(dim=-1)[:, take]).unsqueeze(-1)
            model = log_probs.view(-1, 1, 1)
            mixed = torch.logaddexp(model + keep, neighbours + use)
            # A query without any neighbour keeps the model's distribution.
            mixed = torch.where(found[:, :1, None], mixed, model)
            loss = -torch.einsum("nkl,no->klo", mixed.double(), searched) + unsearched_loss
            self._loss[:, :, t] += loss.cpu()
        self._skipped += skipped.sum(dim=0).cpu()
        self._model_loss -= float(log_probs.double().sum())
        self.tokens += len(log_probs)

    @property
    def model_loss(self) -> float:
        """Mean negative log-likelihood of the model alone, in nats per token."""
        return self._model_loss / max(self.tokens, 1)

    def points(self) -> list[GridPoint]:
        """Every setting, best first."""
        mean = self._loss[..., 0] / max(self.tokens, 1)
        points = [
            GridPoint(k, weight, temperature, float(mean[i, j, t]))
            for i, k in enumerate(self.ks)
            for j, weight in enumerate(self.weights)
            for t, temperature in enumerate(self.temperatures)
        ]
        return sorted(points, key=lambda point: point.loss)

    def skipping(self, point: GridPoint) -> list[SkipPoint]:
        """What skipping would save and cost with the setting *point*, the highest threshold first."""
        place = self.ks.index(point.k), self.weights.index(point.weight), self.temperatures.index(point.temperature)
        losses, tokens = self._loss[place].tolist(), max(self.tokens, 1)
        return [
            SkipPoint(threshold, count / tokens, loss / tokens)
            for threshold, count, loss in list(zip(THRESHOLDS, self._skipped.tolist(), losses, strict=True))[1:]
        ]
