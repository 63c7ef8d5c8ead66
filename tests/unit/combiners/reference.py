"""Mixing as the papers write it: slow, in float64, one query after the other."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.retrieval import Neighbours


def log_sum(numbers: list[float]) -> float:
    """Logarithm of the sum of the exponentials."""
    peak = max(numbers, default=-math.inf)
    if peak == -math.inf:
        return peak
    return peak + math.log(math.fsum(math.exp(number - peak) for number in numbers))


def log(number: float) -> float:
    return math.log(number) if number > 0 else -math.inf


def mixed(log_probs: np.ndarray, values: np.ndarray, log_weights: np.ndarray, weight: float) -> np.ndarray:
    """``log(weight * sum_i w_i [v_i = y] + (1 - weight) * p(y))`` of one query, (V,)."""
    result = []
    for token, log_prob in enumerate(log_probs):
        own = [w for v, w in zip(values, log_weights, strict=True) if v == token]
        terms = [log_sum([float(w) for w in own]) + log(weight), float(log_prob) + log(1 - weight)]
        result.append(log_sum(terms))
    return np.array(result)


def vanilla(log_probs: Tensor, neighbours: Neighbours, weight: float, temperature: float) -> np.ndarray:
    """Vanilla kNN-MT of queries (n,) with V tokens, (n, V)."""
    result = []
    for row, model in enumerate(log_probs.double().numpy()):
        found = neighbours.ids[row].numpy() >= 0
        values = neighbours.values[row].numpy()[found]
        scores = [-float(d) / temperature for d in neighbours.distances[row].double().numpy()[found]]
        if not scores:
            result.append(model)
            continue
        total = log_sum(scores)
        result.append(mixed(model, values, np.array([s - total for s in scores]), weight))
    return np.stack(result)


def cases(seed: int, rows: int, k: int, vocabulary: int, scale: float = 10.0) -> tuple[Tensor, Neighbours]:
    """Random model log-probabilities and neighbours, with repeated tokens, token 0 and missing neighbours.

    Args:
        seed: of everything.
        rows: number of queries; of every four, one has all neighbours, one some, one one, one none.
        k, vocabulary: sizes.
        scale: of the distances.
    """
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(rows, vocabulary, generator=generator)).log_softmax(dim=-1)
    distances = (scale * torch.rand(rows, k, generator=generator)).sort(dim=-1).values
    # A few tokens only, so that they repeat; 0 is among them.
    values = torch.randint(0, min(4, vocabulary), (rows, k), generator=generator)
    values = torch.where(torch.rand(rows, k, generator=generator) < 0.3, values * 2 % vocabulary, values)
    many = torch.tensor([k, (k + 1) // 2, 1, 0])[torch.arange(rows) % 4]
    missing = torch.arange(k) >= many[:, None]
    ids = torch.randint(0, 1000, (rows, k), generator=generator).masked_fill(missing, -1)
    return log_probs, Neighbours(distances.masked_fill(missing, torch.inf), ids, values.masked_fill(missing, 0))


def softmax(numbers: np.ndarray) -> np.ndarray:
    powers = np.exp(numbers - numbers.max())
    result: np.ndarray = powers / powers.sum()
    return result


def sigmoid(number: float) -> float:
    return 1 / (1 + math.exp(-number))


def layers(network: torch.nn.Module, numbers: np.ndarray) -> np.ndarray:
    """Two linear layers with what stands between them, in float64."""
    first, between, last = (network[i] for i in range(3))  # type: ignore[index]
    hidden = first.weight.detach().double().numpy() @ numbers + first.bias.detach().double().numpy()
    hidden = np.tanh(hidden) if isinstance(between, torch.nn.Tanh) else np.maximum(hidden, 0)
    result: np.ndarray = last.weight.detach().double().numpy() @ hidden + last.bias.detach().double().numpy()
    return result


def seen(distances: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    """Distances and counts of different tokens, as a network's input; what is missing is as far as the furthest."""
    missing = k - len(distances)
    counts = [len(set(values[: j + 1].tolist())) for j in range(len(values))]
    padded = np.concatenate([distances, np.full(missing, distances.max(initial=0.0))])
    return np.concatenate([padded, counts + [counts[-1] if counts else 0] * missing])


def nested(distances: np.ndarray, temperature: float, shares: np.ndarray) -> np.ndarray:
    """Weights when a share of the probability goes to the nearest 1, 2, 4, ... neighbours each."""
    weights = np.zeros(len(distances))
    for power, share in enumerate(shares):
        inside = distances[: 2**power]
        weights[: len(inside)] += share * softmax(-inside / temperature)
    return weights


def each(log_probs: Tensor, neighbours: Neighbours, weigh: Any) -> np.ndarray:
    """Mixtures of queries, (n, V): *weigh* gives weights and lambda from a row's number and what was found for it."""
    result = []
    for row, model in enumerate(log_probs.double().numpy()):
        found = neighbours.ids[row].numpy() >= 0
        if not found.any():
            result.append(model)
            continue
        values = neighbours.values[row].numpy()[found]
        weights, weight = weigh(row, neighbours.distances[row].double().numpy()[found], values, found)
        with np.errstate(divide="ignore"):
            result.append(mixed(model, values, np.log(weights), weight))
    return np.stack(result)
