"""Which combiner a run uses."""

from fairseq_knn.combiners import COMBINERS, Combiner, CombinerSizes, TrainedCombiner, VanillaCombiner
from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.errors import CombinerError, ConfigurationError
from fairseq_knn.tasks.knn.config import KnnConfig, complete


def make_combiner(config: KnnConfig, asked: str | None) -> Combiner:
    """The combiner that complete settings ask for, trained ones ready to be used.

    Args:
        config: the settings, completed.
        asked: ``--knn-combiner`` as it was given.

    Raises:
        ConfigurationError: a setting is out of its range, or a trained combiner is asked for and not named.
        CombinerError: there is none in ``--knn-combiner-path``, or it is of another kind than ``--knn-combiner``.
    """
    path, kind = config.knn_combiner_path, config.knn_combiner
    if path is None:
        if kind == VanillaCombiner.kind:
            return VanillaCombiner(weight=float(config.knn_lambda or 0), temperature=float(config.knn_temperature or 0))
        raise ConfigurationError(
            f"--knn-combiner {kind} has to be trained: name the directory of a trained one with --knn-combiner-path"
        )
    combiner = load_combiner(path)
    check_kind(combiner, asked, path)
    return combiner.eval()


def check_kind(combiner: Combiner, asked: str | None, place: str) -> None:
    """
    Args:
        combiner: a trained one.
        asked: ``--knn-combiner`` as it was given: neither its default nor what another checkpoint recorded is a wish.
        place: where the combiner is.

    Raises:
        CombinerError: it is of another kind than what is asked for.
    """
    if asked not in (None, combiner.kind):
        other = "name the base model alone" if asked == VanillaCombiner.kind else "name another one"
        raise CombinerError(
            f"{place} holds a combiner of the kind {combiner.kind}, but --knn-combiner asks for {asked}: leave "
            f"--knn-combiner out, or {other}"
        )


def fresh_combiner(given: KnnConfig, query_dim: int, vocabulary: int) -> TrainedCombiner:
    """An untrained combiner of the kind and shape that the settings ask for.

    Args:
        given: the settings as they were given: a combiner has its own defaults.
        query_dim: dimension of the keys.
        vocabulary: number of target symbols.

    Raises:
        ConfigurationError: the kind has nothing to train, or a setting does not suit it.
    """
    kind = COMBINERS[str(complete(given).knn_combiner)]
    if not issubclass(kind, TrainedCombiner):
        trained = ", ".join(name for name, one in COMBINERS.items() if issubclass(one, TrainedCombiner))
        raise ConfigurationError(
            f"a {kind.kind} combiner has nothing to train: choose --knn-combiner among {trained}, or find the best k, "
            "lambda and temperature with `fairseq-knn tune`"
        )
    asked = {given.knn_max_k} if given.knn_k_type == "fixed" else {given.knn_max_k, given.knn_k}
    counts = asked - {None}
    if len(counts) > 1:
        raise ConfigurationError(
            f"--knn-k is {given.knn_k} and --knn-max-k {given.knn_max_k}, but both say how many neighbours the "
            "combiner is trained with: pass one of them"
        )
    k = counts.pop() if counts else given.usual_k
    return kind.fresh(CombinerSizes(int(k or given.usual_k), query_dim, vocabulary, _options(given), _FLAGS))


_FLAGS = {
    "form": "--knn-adaptive-form",
    "kernel": "--knn-kernel",
    "bandwidth": "--knn-bandwidth",
    "beta": "--knn-noise-beta",
    "temperature": "--knn-temperature",
    "fixed_k": "--knn-k-type fixed",
    "weight": "--knn-lambda-type fixed",
}


def _options(given: KnnConfig) -> dict[str, object]:
    """What was asked for beyond the sizes; a combiner refuses what it does not have."""
    options = {
        "form": given.knn_adaptive_form,
        "kernel": given.knn_kernel,
        "bandwidth": given.knn_bandwidth,
        "beta": given.knn_noise_beta,
        "temperature": given.knn_temperature,
        "fixed_k": (given.knn_k or given.usual_k) if given.knn_k_type == "fixed" else None,
        "weight": complete(given).knn_lambda if given.knn_lambda_type == "fixed" else None,
    }
    asked: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    if given.knn_temperature_type == "trainable":
        asked["temperature"] = None
    return asked
