"""Nearest-neighbour translation, and more, for stock fairseq: ``--user-dir fairseq_knn``.

Importing this package needs no fairseq. When fairseq is loaded, before or after, the tasks and
architectures listed in :mod:`fairseq_knn.plugin` are registered with it.
"""

import importlib
from typing import Any

from fairseq_knn.activation import activate
from fairseq_knn.version import __version__

_API = {
    "AdaptiveCombiner": "fairseq_knn.combiners",
    "Datastore": "fairseq_knn.datastore",
    "KNNSaver": "fairseq_knn.saver",
    "KNNWrapper": "fairseq_knn.wrapper",
    "KernelSmoothedCombiner": "fairseq_knn.combiners",
    "RetomatonWrapper": "fairseq_knn.wrapper",
    "Retriever": "fairseq_knn.retrieval",
    "RobustCombiner": "fairseq_knn.combiners",
    "VanillaCombiner": "fairseq_knn.combiners",
}

__all__ = [
    "AdaptiveCombiner",
    "Datastore",
    "KNNSaver",
    "KNNWrapper",
    "KernelSmoothedCombiner",
    "RetomatonWrapper",
    "Retriever",
    "RobustCombiner",
    "VanillaCombiner",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module(_API[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


activate()
