"""What a split of speech consists of."""

from typing import Any

from fairseq.data import ConcatDataset, ResamplingDataset


def manifests(dataset: Any) -> list[Any]:
    """The data sets of single manifests that stock's data set of a split consists of, in their order."""
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    return [part.dataset if isinstance(part, ResamplingDataset) else part for part in parts]
