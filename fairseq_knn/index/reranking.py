"""Ranking candidates again by their exact distances."""

import torch

from fairseq_knn.index.stored_keys import StoredKeys, rows_of

_BLOCK_BYTES = 32 << 20  # float32 keys that are looked at at once


def nearest_by_keys(
    keys: StoredKeys, queries: torch.Tensor, ids: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The *k* nearest of some candidates.

    Args:
        keys: where the keys of candidates come from.
        queries: float32 (n, d).
        ids: of candidates, int64 (n, m), m >= k; -1 for none.
        k: number of neighbours.

    Returns:
        squared Euclidean distances, float32 (n, k), ascending, +inf where there is none, and ids, int64 (n, k).
    """
    n, m = ids.shape
    distances = torch.empty(n, m)
    rows = rows_of(_BLOCK_BYTES, 4 * m * queries.shape[1])
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        differences = keys.gather(ids[part].clamp_min(0)).float().sub_(queries[part, None])
        distances[part] = torch.linalg.vector_norm(differences, dim=-1).square_()
    distances.masked_fill_(ids < 0, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], ids.gather(1, order[:, :k])
