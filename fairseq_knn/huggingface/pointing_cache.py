"""The neighbours of every hypothesis' last step, kept in the model's own cache of attention states.

Beam search tells that cache, and nothing else, which hypotheses it goes on with. So the cache object is given a
subclass of its own class that takes the neighbours along. They end with it, and copies of it have copies of them.
"""

from typing import Any

from torch import Tensor

from fairseq_knn.retrieval import Neighbours


class PointingCache:
    """Mixed into the class of a cache by :func:`keep_candidates`."""

    knn_candidates: Neighbours | None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the hypotheses *beam_idx*, int64 (B,)."""
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some hypotheses, int64 or bool (B,)."""
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Make several of every hypothesis."""
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        if (before := self.knn_candidates) is not None:
            parts = (before.distances, before.ids, before.values)
            self.knn_candidates = Neighbours(*(part.repeat_interleave(repeats, dim=0) for part in parts))

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Go back some steps, whose neighbours are gone."""
        super().crop(*args, **kwargs)  # type: ignore[misc]
        self.knn_candidates = None

    def reset(self) -> None:
        """Begin anew."""
        super().reset()  # type: ignore[misc]
        self.knn_candidates = None

    def _select(self, rows: Tensor) -> None:
        if (before := self.knn_candidates) is not None:
            self.knn_candidates = before.select(rows.to(before.ids.device))


_classes: dict[type, type] = {}


def keep_candidates(cache: Any, candidates: Neighbours) -> None:
    """Keep the neighbours of a step, (B, m), in the cache of that step."""
    own = type(cache)
    if not issubclass(own, PointingCache):
        if own not in _classes:
            _classes[own] = type(own.__name__, (PointingCache, own), {"__module__": __name__})
        cache.__class__ = _classes[own]
    cache.knn_candidates = candidates


def candidates_of(cache: Any) -> Neighbours | None:
    """What was kept last, (B, m); ``None`` where a sequence begins."""
    return cache.knn_candidates if isinstance(cache, PointingCache) else None
