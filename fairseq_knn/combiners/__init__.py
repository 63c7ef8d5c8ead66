"""How neighbours become a distribution and how it is mixed with the model's.

A combiner is one small module with one class and one line in :data:`COMBINERS`.
"""

from fairseq_knn.combiners.adaptive import AdaptiveCombiner
from fairseq_knn.combiners.base import Combiner, Mixture
from fairseq_knn.combiners.kernel_smoothed import KernelSmoothedCombiner
from fairseq_knn.combiners.mixing import mix, mix_target, target_mass
from fairseq_knn.combiners.robust import RobustCombiner
from fairseq_knn.combiners.sizes import CombinerSizes
from fairseq_knn.combiners.trained import TrainedCombiner
from fairseq_knn.combiners.vanilla import VanillaCombiner

COMBINERS: dict[str, type[Combiner]] = {
    "vanilla": VanillaCombiner,
    "adaptive": AdaptiveCombiner,
    "kernel_smoothed": KernelSmoothedCombiner,
    "robust": RobustCombiner,
}

__all__ = [
    "COMBINERS",
    "AdaptiveCombiner",
    "Combiner",
    "CombinerSizes",
    "KernelSmoothedCombiner",
    "Mixture",
    "RobustCombiner",
    "TrainedCombiner",
    "VanillaCombiner",
    "mix",
    "mix_target",
    "target_mass",
]
