"""Trained combiners from directories, whatever their kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_knn.combiners import COMBINERS
from fairseq_knn.combiners.trained import TrainedCombiner, read_combiner_config
from fairseq_knn.errors import CombinerError

TRAINED = tuple(combiner for combiner in COMBINERS.values() if issubclass(combiner, TrainedCombiner))


def make_like(description: Mapping[str, Any]) -> TrainedCombiner:
    """An untrained combiner of a kind and shape.

    Args:
        description: its ``kind`` and its :meth:`~fairseq_knn.combiners.TrainedCombiner.config`.

    Raises:
        CombinerError: there is no such combiner.
    """
    shape = dict(description)
    kind = shape.pop("kind", None)
    try:
        return next(combiner for combiner in TRAINED if combiner.kind == kind)(**shape)
    except (StopIteration, TypeError) as error:
        raise CombinerError(
            f"the checkpoint holds a combiner that this version does not know ({dict(description)}): install the "
            "version of fairseq_knn that wrote it"
        ) from error


def load_combiner(path: Path | str) -> TrainedCombiner:
    """Read the combiner in a directory that this package or knn-box wrote.

    Raises:
        CombinerError: there is none, it is damaged, or of a kind that this package does not know.
    """
    root = Path(path)
    kind = read_combiner_config(root).get("combiner")
    for combiner in TRAINED:
        if combiner.kind == kind or (kind is None and (root / combiner.knnbox_weights).exists()):
            return combiner.load(root)
    known = ", ".join(combiner.kind for combiner in TRAINED)
    raise CombinerError(
        f"{root} holds a combiner of the kind {kind!r}, and none of {known}: name another directory, or install the "
        "version of fairseq_knn that wrote it"
        if kind is not None
        else f"{root} holds no parameters of a combiner ({known}): name the directory that was trained"
    )
