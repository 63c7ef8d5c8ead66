"""Which combiner a run uses."""

from fairseq_knn.combiners import COMBINERS, Combiner, TrainedCombiner, VanillaCombiner
from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.combiners.trained import CombinerSizes
from fairseq_knn.errors import CombinerError, ConfigurationError
from fairseq_knn.tasks.knn_config import KnnConfig


def make_combiner(config: KnnConfig) -> Combiner:
    """The combiner that complete settings ask for, trained ones ready to be used.

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
    check_kind(combiner, config, path)
    return combiner.eval()


def check_kind(combiner: Combiner, config: KnnConfig, place: str) -> None:
    """
    Raises:
        CombinerError: a trained combiner is of another kind than ``--knn-combiner`` asks for.
    """
    # Vanilla is what nobody who names a trained combiner can mean: it is the default.
    if config.knn_combiner not in (VanillaCombiner.kind, combiner.kind):
        raise CombinerError(
            f"{place} holds a combiner of the kind {combiner.kind}, but --knn-combiner asks for {config.knn_combiner}: "
            "leave --knn-combiner out, or name another one"
        )


def fresh_combiner(config: KnnConfig, query_dim: int, vocabulary: int) -> TrainedCombiner:
    """An untrained combiner of the kind and shape that complete settings ask for.

    Args:
        config: the settings.
        query_dim: dimension of the keys.
        vocabulary: number of target symbols.

    Raises:
        ConfigurationError: the kind has nothing to train, or a setting does not suit it.
    """
    kind = COMBINERS[str(config.knn_combiner)]
    if not issubclass(kind, TrainedCombiner):
        trained = ", ".join(name for name, one in COMBINERS.items() if issubclass(one, TrainedCombiner))
        raise ConfigurationError(
            f"a {kind.kind} combiner has nothing to train: choose --knn-combiner among {trained}, or find the best k, "
            "lambda and temperature with `fairseq-knn tune`"
        )
    nested = kind.kind in ("adaptive", "robust")
    sizes = CombinerSizes(
        k=int(config.knn_max_k if nested else config.knn_k),
        query_dim=query_dim,
        probability_dim=vocabulary,
        options=_options(config),
    )
    return kind.fresh(sizes)


def _options(config: KnnConfig) -> dict[str, object]:
    """Settings of the kind's own."""
    if config.knn_combiner == "kernel_smoothed":
        return {"kernel": config.knn_kernel}
    if config.knn_combiner == "robust":
        return {"beta": config.knn_noise_beta}
    options: dict[str, object] = {"form": config.knn_adaptive_form, "temperature": config.knn_temperature}
    if config.knn_adaptive_form == "separate":
        fixed = {
            "fixed_k": config.knn_k if config.knn_k_type == "fixed" else None,
            "weight": config.knn_lambda if config.knn_lambda_type == "fixed" else None,
            "temperature": config.knn_temperature if config.knn_temperature_type == "fixed" else None,
        }
        options.update(fixed)
    return options
