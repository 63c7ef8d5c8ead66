"""Nearest-neighbour search over the keys of a datastore; the only place that knows faiss."""

import logging

from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.devices import number_of_gpus
from fairseq_knn.index.opening import BACKENDS, LOADS, open_backend
from fairseq_knn.index.stored_keys import open_keys

# faiss tells of every processor variant it lacks before it finds the one it has.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)

__all__ = ["BACKENDS", "LOADS", "SearchBackend", "number_of_gpus", "open_backend", "open_keys"]
