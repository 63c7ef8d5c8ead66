"""Utterances with what is said in them."""

from argparse import Namespace
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.speech_to_text import SpeechToTextTask
from torch.utils.data import DataLoader

from fairseq_knn.tasks.imitation.transcribed_speech import TranscribedSpeech, with_parts
from fairseq_knn.tasks.imitation.transcripts import encode_references, encode_transcripts
from fairseq_knn.tasks.speech.manifests import manifests
from tests import speech

AUGMENTED = (
    "transforms:\n  _train: [specaugment]\nspecaugment: {freq_mask_F: 20, freq_mask_N: 1, time_mask_N: 1, "
    "time_mask_T: 10, time_mask_p: 1.0, time_wrap_W: 0}\n"
)
SPLITS = {"train_a": 13, "train_b": 9}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> speech.World:
    made = speech.write(tmp_path_factory.mktemp("speech") / "data", SPLITS)
    with (made.data / speech.CONFIG).open("a") as file:
        file.write(AUGMENTED)
    (made.data / "sampled.yaml").write_text((made.data / speech.CONFIG).read_text() + "sampling_alpha: 0.5\n")
    return made


def loaded(world: speech.World, config: str = speech.CONFIG, reads: bool = True) -> Any:
    """Both manifests as one split."""
    args = Namespace(data=str(world.data), config_yaml=config, seed=1, max_source_positions=999, max_target_positions=9)
    task = SpeechToTextTask.setup_task(args)
    task.load_dataset("train_a,train_b")
    dictionary = Dictionary.load(str(world.data / "dict.src.txt"))
    parts, first = [], 0
    for stock in manifests(task.datasets["train_a,train_b"]):
        texts = encode_transcripts(stock.src_texts, dictionary, str, stock.split, 0.0) if reads else None
        translations = [stock.get_tokenized_tgt_text(number) for number in range(len(stock))]
        references = encode_references(translations, task.target_dictionary, stock.split, stock.ids, 0.0)
        parts.append(TranscribedSpeech(stock, references, texts, first, 1))
        first += len(stock)
    return with_parts(task.datasets["train_a,train_b"], parts)


def utterances(world: speech.World) -> list[speech.Utterance]:
    return [each for split in SPLITS for each in world.utterances[split]]


def check(batch: dict[str, Any], world: speech.World) -> None:
    """Transcript, translation and number of every row are those of one utterance."""
    source, target = (Dictionary.load(str(world.data / name)) for name in ("dict.src.txt", "dict.txt"))
    everything = utterances(world)
    frames = batch["net_input"]["src_lengths"].tolist()
    assert frames == sorted(frames, reverse=True)
    assert set(batch["net_input"]) == {"src_tokens", "src_lengths", "prev_output_tokens"}  # what the model is given
    for row, number in enumerate(batch["sentence"].tolist()):
        utterance = everything[number]
        length = int(batch["expert_input"]["src_lengths"][row])
        read = batch["expert_input"]["src_tokens"][row]
        assert source.string(read[: length - 1]) == utterance.source
        assert int(read[length - 1]) == source.eos()
        assert bool(read[length:].eq(source.pad()).all())
        assert target.string(batch["target"][row][batch["target"][row].ne(target.pad())]) == utterance.target
        assert frames[row] == len(utterance.features)


def test_rows_belong_together_in_any_order_and_from_several_manifests(world: speech.World) -> None:
    dataset = loaded(world)
    order = torch.randperm(22, generator=torch.Generator().manual_seed(1)).tolist()
    seen: list[int] = []
    for first in range(0, 22, 5):
        batch = dataset.collater([dataset[number] for number in order[first : first + 5]])
        check(batch, world)
        seen += batch["sentence"].tolist()
    assert sorted(seen) == list(range(22))  # no number twice


def test_rows_of_manifests_that_are_sampled(world: speech.World) -> None:
    dataset = loaded(world, "sampled.yaml")
    found = []
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        batch = dataset.collater([dataset[number] for number in range(len(dataset))])
        check(batch, world)
        found.append(batch["sentence"].tolist())
    assert found[0] != found[1]


def test_an_empty_batch(world: speech.World) -> None:
    assert loaded(world).collater([]) == {}


def test_an_expert_that_hears_has_nothing_to_read(world: speech.World) -> None:
    dataset = loaded(world, reads=False)
    batch = dataset.collater([dataset[0], dataset[20]])
    assert "expert_input" not in batch
    assert sorted(batch["sentence"].tolist()) == [0, 20]


def heard(dataset: Any, numbers: list[int]) -> list[torch.Tensor]:
    return [dataset[number].spoken.source for number in numbers]


def test_augmentation_depends_on_seed_epoch_and_utterance_alone(world: speech.World) -> None:
    one, other = loaded(world), loaded(world)
    for dataset in (one, other):
        dataset.set_epoch(3)
    heard(other, [5, 6, 7])
    first, second = heard(one, [2, 20]), heard(other, [20, 2])
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    other.set_epoch(4)
    assert not torch.equal(heard(other, [2])[0], first[0])
    plain = torch.from_numpy(utterances(world)[2].features)
    assert not torch.equal(first[0], plain)


def test_loading_workers_change_nothing_and_hear_of_the_epoch(world: speech.World) -> None:
    dataset = loaded(world)
    batches = [list(range(first, min(first + 4, 22))) for first in range(0, 22, 4)]
    workers = DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=2, persistent_workers=True
    )
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        for batch, numbers in zip(workers, batches, strict=True):
            alone = dataset.collater([dataset[number] for number in numbers])
            assert torch.equal(batch["net_input"]["src_tokens"], alone["net_input"]["src_tokens"])
            assert torch.equal(batch["expert_input"]["src_tokens"], alone["expert_input"]["src_tokens"])
            assert torch.equal(batch["sentence"], alone["sentence"])


def test_positions_and_digest(world: speech.World) -> None:
    first, second = manifests(loaded(world))
    assert first.positions() == [len(each.target.split()) + 1 for each in world.utterances["train_a"]]
    assert first.digest() == manifests(loaded(world))[0].digest() != second.digest()
    assert first.digest() != manifests(loaded(world, reads=False))[0].digest()


@pytest.mark.parametrize("reads", [True, False])
def test_the_expert_is_asked_about_what_is_in_batches(world: speech.World, reads: bool) -> None:
    """Without audio, if it needs none."""
    for part in manifests(loaded(world, reads=reads)):
        numbers = [2, 0, 1]
        asked, batch = part.asked(numbers), part.collater([part[number] for number in numbers])
        assert ("src_tokens" in asked["net_input"]) is not reads
        order = [batch["sentence"].tolist().index(number) for number in asked["sentence"].tolist()]
        lengths = part.positions()
        for row, other in enumerate(order):
            prefix = asked["net_input"]["prev_output_tokens"][row]
            assert prefix.tolist() == batch["net_input"]["prev_output_tokens"][other].tolist()
            assert int(prefix.ne(1).sum()) == lengths[int(asked["sentence"][row]) - part.first]
            if reads:
                spoken = asked["expert_input"]["src_tokens"][row]
                assert spoken.tolist() == batch["expert_input"]["src_tokens"][other].tolist()
