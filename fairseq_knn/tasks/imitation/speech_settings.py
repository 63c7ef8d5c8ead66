"""Whether the data of speech translation goes together with imitation."""

from collections.abc import Sized
from typing import Any

from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.data.audio.dataset_transforms.concataugment import ConcatAugment
from fairseq.data.audio.feature_transforms.specaugment import SpecAugmentTransform
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset

from fairseq_knn.errors import ConfigurationError


def check_imitated(data: S2TDataConfig, other_tasks: Sized) -> None:
    """
    Args:
        data: the data's YAML.
        other_tasks: of ``--multitask-config-yaml``.

    Raises:
        ConfigurationError: there is more to learn than an expert knows, or sentences do not end with </s>.
    """
    if other_tasks:
        raise ConfigurationError(
            "--multitask-config-yaml trains further decoders, of which the expert knows nothing: leave it out, or use "
            "a stock criterion"
        )
    if data.prepend_bos_and_append_tgt_lang_tag:
        raise ConfigurationError(
            "translations end with the tag of their language (prepend_bos_and_append_tgt_lang_tag in the data's YAML), "
            "but an expert ends them with </s>: leave it out, or use a stock criterion"
        )


def check_heard(dataset: SpeechToTextDataset, config: Any) -> None:
    """
    Args:
        dataset: of a manifest.
        config: settings of imitation.

    Raises:
        ConfigurationError: utterances are joined, or what a cache has of them would change.
    """
    if dataset.dataset_transforms.has_transform(ConcatAugment):
        raise ConfigurationError(
            "dataset_transforms in the data's YAML joins utterances (concataugment), of which the expert has no "
            "transcript: leave it out"
        )
    if config.kd_cache is not None and str(config.kd_expert_input) == "audio" and _varies(dataset):
        raise ConfigurationError(
            "--kd-cache holds what the expert says of an utterance once, but transforms in the data's YAML (as "
            f"specaugment) change what it hears of {dataset.split} in every epoch: leave --kd-cache or these out"
        )


def _varies(dataset: SpeechToTextDataset) -> bool:
    """Whether utterances sound different every time."""
    features = getattr(dataset.feature_transforms, "transforms", None) or ()
    others = (dataset.waveform_transforms, dataset.dataset_transforms)
    return any(isinstance(each, SpecAugmentTransform) for each in features) or any(
        getattr(each, "transforms", None) for each in others
    )
