"""Which combiner a run uses."""

from fairseq_knn.combiners import Combiner, VanillaCombiner
from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.errors import CombinerError, ConfigurationError
from fairseq_knn.tasks.knn_config import KnnConfig


def make_combiner(config: KnnConfig) -> Combiner:
    """The combiner that the settings ask for, trained ones ready to be used.

    Raises:
        ConfigurationError: a setting is out of its range, or a trained combiner is asked for and not named.
        CombinerError: there is none in ``--knn-combiner-path``, or it is of another kind than ``--knn-combiner``.
    """
    path, kind = config.knn_combiner_path, config.knn_combiner
    if path is None:
        if kind == VanillaCombiner.kind:
            return VanillaCombiner(weight=config.knn_lambda, temperature=config.knn_temperature)
        raise ConfigurationError(
            f"--knn-combiner {kind} has to be trained: name the directory of a trained one with --knn-combiner-path"
        )
    combiner = load_combiner(path)
    # Vanilla is what nobody who names a trained combiner can mean: it is the default.
    if kind not in (VanillaCombiner.kind, combiner.kind):
        raise CombinerError(
            f"{path} holds a combiner of the kind {combiner.kind}, but --knn-combiner asks for {kind}: leave "
            "--knn-combiner out, or name another directory"
        )
    return combiner.eval()
