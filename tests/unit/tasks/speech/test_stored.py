"""Sentences of speech are numbered through several splits, and sound the same every time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.speech.stored import as_stored
from tests import speech

SIZES = {"train_a": 3, "train_b": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> speech.World:
    return speech.write(tmp_path_factory.mktemp("speech"), SIZES)


def load(world: speech.World, splits: str, settings: str = "") -> Any:
    """As the stock task loads splits, with further settings."""
    config = world.data / "other.yaml"
    config.write_text(f"vocab_filename: dict.txt\n{settings}")
    return SpeechToTextDatasetCreator.from_tsv(
        root=str(world.data),
        cfg=S2TDataConfig(Path(config)),
        splits=splits,
        tgt_dict=Dictionary.load(str(world.data / "dict.txt")),
        pre_tokenizer=None,
        bpe_tokenizer=None,
        is_train_split=splits.startswith("train"),
        epoch=1,
        seed=1,
    )


def test_sentences_of_several_splits_are_numbered_through(world: speech.World) -> None:
    dataset = load(world, "train_a,train_b")
    assert [dataset[i].index for i in range(len(dataset))] == [0, 1, 2, 0, 1, 2, 3, 4]
    stored = as_stored(dataset)
    assert [stored[i].index for i in range(len(stored))] == list(range(8))
    heard = [torch.from_numpy(each.features) for split in SIZES for each in world.utterances[split]]
    batch = stored.collater([stored[i] for i in (6, 1, 3)])
    for number, frames, length in zip(
        batch["id"], batch["net_input"]["src_tokens"], batch["net_input"]["src_lengths"], strict=True
    ):
        torch.testing.assert_close(frames[:length], heard[number])


def test_one_split_stays_what_it_is(world: speech.World) -> None:
    dataset = load(world, "train_b")
    assert as_stored(dataset) is dataset


@pytest.mark.parametrize("name", ["_train", "train_b", "_eval", "*"])
def test_transforms_are_those_of_evaluation(name: str, world: speech.World) -> None:
    """SpecAugment sets frames to their mean at random."""
    settings = (
        f"feature_transforms: {{'{name}': [specaugment]}}\n"
        "specaugment: {time_mask_N: 1, time_mask_T: 8, time_mask_p: 1.0, freq_mask_N: 1, freq_mask_F: 20}\n"
        "dataset_transforms: {_train: [concataugment]}\nconcataugment: {rate: 1.0}\n"
    )
    dataset = load(world, "train_b", settings)
    if name in ("_train", "train_b"):
        assert dataset.feature_transforms is not None
    stored = as_stored(dataset)
    assert (stored.feature_transforms is None) == (name in ("_train", "train_b"))
    assert len(stored[2].source) == len(world.utterances["train_b"][2].features)  # nothing is joined to it


def test_sampled_sentences_are_refused(world: speech.World) -> None:
    dataset = load(world, "train_a,train_b", "sampling_alpha: 0.5\n")
    with pytest.raises(ConfigurationError, match=r"sampling_alpha .* leave it out, or name one split"):
        as_stored(dataset)
