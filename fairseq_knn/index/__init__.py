"""Nearest-neighbour search over the keys of a datastore; the only place that knows faiss."""

from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.opening import BACKENDS, open_backend

__all__ = ["BACKENDS", "SearchBackend", "open_backend"]
