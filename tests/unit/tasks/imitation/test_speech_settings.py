"""Data of speech translation that does not go together with imitation."""

from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.data.audio.dataset_transforms import CompositeAudioDatasetTransform
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.speech_settings import check_heard, check_imitated


def data(tags_at_the_end: bool = False) -> Any:
    return SimpleNamespace(prepend_bos_and_append_tgt_lang_tag=tags_at_the_end)


def dataset(features: list[str], joined: list[str]) -> Any:
    specaugment = {"specaugment": {"time_wrap_W": 0}, "utterance_cmvn": {}}
    return SimpleNamespace(
        split="train",
        feature_transforms=CompositeAudioFeatureTransform.from_config_dict(
            {"feature_transforms": features, **specaugment}
        ),
        waveform_transforms=None,
        dataset_transforms=CompositeAudioDatasetTransform.from_config_dict({"dataset_transforms": joined}),
    )


def config(cache: str | None = None, hears: bool = False) -> Any:
    return SimpleNamespace(kd_cache=cache, kd_expert_input="audio" if hears else "transcript")


def test_what_an_expert_does_not_know() -> None:
    check_imitated(data(), {})
    with pytest.raises(ConfigurationError, match="--multitask-config-yaml"):
        check_imitated(data(), {"ctc": object()})
    with pytest.raises(ConfigurationError, match="prepend_bos_and_append_tgt_lang_tag"):
        check_imitated(data(tags_at_the_end=True), {})


def test_joined_utterances() -> None:
    check_heard(dataset(["specaugment"], []), config())
    with pytest.raises(ConfigurationError, match="concataugment"):
        check_heard(dataset([], ["concataugment"]), config())


def test_a_cache_of_what_sounds_different_in_every_epoch() -> None:
    """What the expert reads does not change, and normalisation is the same every time."""
    check_heard(dataset(["specaugment"], []), config("cache"))
    check_heard(dataset(["utterance_cmvn"], []), config("cache", hears=True))
    with pytest.raises(ConfigurationError, match=r"--kd-cache .* specaugment"):
        check_heard(dataset(["utterance_cmvn", "specaugment"], []), config("cache", hears=True))
