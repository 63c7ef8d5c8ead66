"""Splits of speech as datastores are built from them: numbered sentences that sound the same every time."""

import dataclasses
from typing import Any

from fairseq.data import ConcatDataset, ResamplingDataset
from fairseq.data.audio.dataset_transforms import CompositeAudioDatasetTransform
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset
from fairseq.data.audio.waveform_transforms import CompositeAudioWaveformTransform

from fairseq_knn.errors import ConfigurationError

_EVALUATION = "_eval"  # what a configuration calls the transforms of all splits that are not trained on


def as_stored(dataset: Any) -> Any:
    """A loaded split, or several in a row, as a datastore holds them.

    Args:
        dataset: as the stock task loads it.

    Returns:
        The same sentences. In batches they are numbered through all splits, where stock begins anew in each; and they
        are transformed as in evaluation, where stock masks frames (SpecAugment), joins sentences or adds noise at
        random.

    Raises:
        ConfigurationError: stock repeats and leaves out sentences at random.
    """
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    for part in parts:
        if isinstance(part, ResamplingDataset):
            raise ConfigurationError(
                "sampling_alpha in the configuration repeats some sentences of several training splits and leaves out "
                "others at random, while a datastore holds each once: leave it out, or name one split"
            )
        _transform_as_in_evaluation(part)
    return NumberedSentences(parts) if len(parts) > 1 else dataset


class NumberedSentences(ConcatDataset):
    """Several splits of speech whose sentences say which they are of all, and not of their own split."""

    def __getitem__(self, index: int) -> Any:
        item = super().__getitem__(index)
        if isinstance(item, tuple):  # with targets of other tasks
            return (dataclasses.replace(item[0], index=int(index)), *item[1:])
        return dataclasses.replace(item, index=int(index))


def _transform_as_in_evaluation(dataset: SpeechToTextDataset) -> None:
    config = dataset.cfg
    dataset.feature_transforms = CompositeAudioFeatureTransform.from_config_dict(
        config.get_feature_transforms(_EVALUATION, False)
    )
    dataset.waveform_transforms = CompositeAudioWaveformTransform.from_config_dict(
        config.get_waveform_transforms(_EVALUATION, False)
    )
    dataset.dataset_transforms = CompositeAudioDatasetTransform.from_config_dict(
        config.get_dataset_transforms(_EVALUATION, False)
    )
