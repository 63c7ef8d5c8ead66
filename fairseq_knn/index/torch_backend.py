"""Exact search by matrix products, on the CPU or on the GPU of the model."""

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.backend import SearchBackend, as_matrix, mark_missing
from fairseq_knn.index.stored_keys import ResidentKeys, StoredKeys, StreamedKeys, rows_of

# Scores of one block, in bytes. On a CPU a small block stays in the cache (4,096 to 16,384 keys per 128
# queries are the fastest there); a GPU wants few, large kernels.
_CPU_SCORES, _GPU_SCORES = 4 << 20, 256 << 20
_CANDIDATE_BYTES = 256 << 20  # keys of the candidates whose distances are computed again
_CPU_RESIDENT = 2 << 30  # float32 keys beyond this are read from the datastore for every search
_SPARE = 32  # candidates beyond k: see `TorchBackend`
_EPSILON = 2.0**-24  # unit roundoff of float32
_HALF_MAX = torch.finfo(torch.float16).max


class TorchBackend(SearchBackend):
    """Brute force: every query against every key.

    Keys are ranked by ``2 q.k - |k|^2`` in float32. Where q is close to k the terms cancel, so this score
    only chooses k + 32 candidates; their distances are then computed from the differences ``q - k`` and
    decide the order and the result. A key can be missed only if more than 32 others rank before it by
    rounding errors alone. On a CPU a bound on these errors tells when that is possible, and such
    queries are searched again in float64; on a GPU asking would stall every step, so there a wrong
    choice remains possible among more than 32 keys whose distances differ by less than about
    ``1e-6 |q| |k|``.

    Args:
        datastore: whose keys are searched.
        device: where they are kept: on a GPU in float16; on a CPU in float32 if they fit into 2 GiB so, otherwise
            they are read from the datastore for every search.
        resident: keep them in memory in any case, in float16 where they do not fit into 2 GiB.
        entries: search only these, consecutive ones, which are numbered from 0 here; ``None`` for all.

    Raises:
        DatastoreError: a file of keys is damaged, or they were dropped.
    """

    def __init__(
        self, datastore: Datastore, device: torch.device, *, resident: bool = False, entries: range | None = None
    ) -> None:
        self.entries = datastore.entries if entries is None else len(entries)
        self.dimension, self.device = datastore.dimension, device
        self._keys: StoredKeys
        if device.type != "cpu":
            self._keys = ResidentKeys(datastore, device, torch.float16, entries)
        elif 4 * self.entries * self.dimension <= _CPU_RESIDENT:
            self._keys = ResidentKeys(datastore, device, torch.float32, entries)
        elif resident:
            self._keys = ResidentKeys(datastore, device, torch.float16, entries)
        else:
            self._keys = StreamedKeys(datastore, entries)
        self.keeps_keys = isinstance(self._keys, ResidentKeys)
        self._score_bytes = _CPU_SCORES if device.type == "cpu" else _GPU_SCORES
        self._norms = torch.cat([_squared(block) for _, block in self._keys.blocks(self._block_rows(128))])
        self._mixed_product = device.type == "cuda" and _has_mixed_product(device)

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        moved = as_matrix(queries, self.dimension).to(self.device, torch.float32)
        pool = min(k + _SPARE, self.entries)
        scores, candidates = self._candidates(moved, pool)
        distances, ids = self._nearest(moved, candidates, min(k, pool))
        if self.device.type == "cpu" and pool < self.entries:
            doubtful = self._doubtful(moved, scores[:, -1], distances[:, -1])
            if doubtful.any():
                hard = moved[doubtful]
                _, candidates = self._candidates(hard.double(), pool)
                distances[doubtful], ids[doubtful] = self._nearest(hard, candidates, min(k, pool))
        distances, ids = mark_missing(distances, ids, k)
        return distances.to(queries.device), ids.to(queries.device)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return self._keys.gather(ids)

    def _candidates(self, queries: torch.Tensor, pool: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The *pool* best scores ``2 q.k - |k|^2`` of every query, descending, and their ids."""
        best = queries.new_full((len(queries), 0), 0)
        best_ids = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
        for start, keys in self._keys.blocks(self._block_rows(len(queries))):
            scores, columns = self._scores(queries, start, keys).topk(min(pool, len(keys)))
            best = torch.cat([best, scores], dim=1)
            best_ids = torch.cat([best_ids, columns + start], dim=1)
            if start:
                best, columns = best.topk(min(pool, best.shape[1]))
                best_ids = best_ids.gather(1, columns)
        return best, best_ids

    def _scores(self, queries: torch.Tensor, start: int, keys: torch.Tensor) -> torch.Tensor:
        if queries.dtype == torch.float64:
            keys = keys.double()
            return torch.addmm(-keys.square().sum(1), queries, keys.T, alpha=2)
        norms = self._norms[start : start + len(keys)]
        if self._mixed_product:
            return 2 * _mixed_product(queries, keys) - norms
        return torch.addmm(-norms, queries, keys.float().T, alpha=2)

    def _nearest(self, queries: torch.Tensor, ids: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Order candidates by the distance computed from differences; keep *k*."""
        ids = ids.sort(dim=1).values  # equal distances: the smaller id comes first
        distances = torch.empty(ids.shape, device=self.device)
        rows = rows_of(_CANDIDATE_BYTES, 4 * ids.shape[1] * self.dimension)
        for start in range(0, len(ids), rows):
            part = slice(start, start + rows)
            differences = self._keys.gather(ids[part]).float() - queries[part, None]
            distances[part] = differences.square_().sum(2)
        distances, order = distances.sort(dim=1, stable=True)
        return distances[:, :k], ids.gather(1, order[:, :k])

    def _doubtful(self, queries: torch.Tensor, worst_score: torch.Tensor, kth: torch.Tensor) -> torch.Tensor:
        """Whether rounding may have kept a nearer key out of the candidates, bool (n,).

        Args:
            worst_score: lowest score among the candidates (n,); no key outside has a higher one.
            kth: distance of the k-th neighbour (n,).
        """
        norms = queries.double().norm(dim=1)
        # A key that is nearer than the k-th neighbour cannot be longer than this.
        longest = norms + kth.double().sqrt()
        error = (self.dimension + 4) * _EPSILON * (2 * norms * longest + longest.square())
        outside = (norms.square() - worst_score.double() - error).clamp_min(0)
        # Differences below the precision of a float32 distance do not count.
        return torch.gt(kth.double() * (1 - 2 * _EPSILON), outside)

    def _block_rows(self, queries: int) -> int:
        return rows_of(self._score_bytes, 4 * max(queries, 128))


def _squared(keys: torch.Tensor) -> torch.Tensor:
    """Squared norms, float32 (n,)."""
    return keys.float().square().sum(1)


def _has_mixed_product(device: torch.device) -> bool:
    """Whether torch multiplies float16 matrices with a float32 result on this device."""
    try:
        one = torch.ones((16, 16), dtype=torch.float16, device=device)
        torch.mm(one, one, out_dtype=torch.float32)
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


def _mixed_product(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """``queries @ keys.T`` on tensor cores, float32 (n, m), from float32 queries and float16 keys.

    A query goes in as the sum of two float16 numbers, which together keep 22 bits of it.
    """
    high = queries.clamp(-_HALF_MAX, _HALF_MAX).half()
    low = (queries - high).clamp(-_HALF_MAX, _HALF_MAX).half()
    both = torch.mm(torch.cat([high, low]), keys.T, out_dtype=torch.float32)
    return both[: len(queries)] + both[len(queries) :]
