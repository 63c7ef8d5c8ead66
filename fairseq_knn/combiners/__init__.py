"""How neighbours become a distribution and how it is mixed with the model's.

A combiner is one small module with one class and one line in :data:`COMBINERS`.
"""

from collections.abc import Callable

from fairseq_knn.combiners.base import Combiner, Mixture
from fairseq_knn.combiners.mixing import mix
from fairseq_knn.combiners.vanilla import VanillaCombiner

COMBINERS: dict[str, Callable[..., Combiner]] = {"vanilla": VanillaCombiner}

__all__ = ["COMBINERS", "Combiner", "Mixture", "VanillaCombiner", "mix"]
