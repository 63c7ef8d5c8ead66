"""RetoMaton for one sequence, entry by entry, in float64: what the batched automaton has to equal."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def walk(
    keys: np.ndarray,
    values: Sequence[int],
    continues: Sequence[bool],
    queries: np.ndarray,
    tokens: Sequence[int],
    *,
    k: int,
    min_knns: int,
    max_knns: int,
    cluster: Sequence[int] | None = None,
) -> list[tuple[list[int], list[float], bool]]:
    """The neighbours of every step: entries (none twice), their squared distances, and whether there was a search.

    Args:
        keys, values, continues: of the entries.
        queries: (T, d).
        tokens: emitted after each step.
        cluster: of every entry.
    """
    keys, queries = keys.astype(np.float64), queries.astype(np.float64)
    result: list[tuple[list[int], list[float], bool]] = []
    before: list[tuple[float, int]] = []
    for query, token in zip(queries, [None, *tokens], strict=False):
        distances = ((keys - query) ** 2).sum(axis=1)
        right = [(d, entry) for d, entry in before if values[entry] == token and continues[entry]]
        pointers = [entry + 1 for _, entry in sorted(right, key=lambda pair: pair[0])][:max_knns]
        search = len(right) < min_knns or min_knns >= max_knns
        if cluster is not None and len(pointers) < max_knns:
            hits = Counter(cluster[pointer] for pointer in pointers)  # in the order of the first hit
            for number in sorted(hits, key=lambda number: -hits[number]):
                for member in np.flatnonzero(np.asarray(cluster) == number).tolist():
                    if member not in pointers and len(pointers) < max_knns:
                        pointers.append(member)
        found = np.argsort(distances, kind="stable")[:k].tolist() if search else []
        entries = found + [pointer for pointer in pointers if pointer not in found]
        result.append((entries, [float(distances[entry]) for entry in entries], search))
        before = [(float(distances[entry]), entry) for entry in entries]
    return result


def target_log_prob(
    model_log_prob: float,
    target: int,
    entries: Sequence[int],
    distances: Sequence[float],
    values: Sequence[int],
    weight: float,
    temperature: float,
) -> float:
    """Vanilla mixing of one token, in float64."""
    if not entries:
        return model_log_prob
    scores = -np.asarray(distances) / temperature
    probs = np.exp(scores - scores.max())
    probs /= probs.sum()
    mass = sum(float(p) for p, entry in zip(probs, entries, strict=True) if values[entry] == target)
    return float(np.log(weight * mass + (1 - weight) * np.exp(model_log_prob)))
