"""Batches of languages that are drawn by probabilities which change."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pytest
from fairseq.data import FairseqDataset, iterators
from numpy.typing import NDArray

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.dds.language import Language
from fairseq_knn.tasks.dds.language_batches import LanguageBatches
from fairseq_knn.tasks.dds.packing import Packing

SIZES = (400, 100, 30)
TENS = Packing(max_tokens=None, max_sentences=10, multiple=1)


class Sentences(FairseqDataset):
    """Pairs of which only the lengths matter; an item is its number."""

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> int:
        return int(index)

    def collater(self, samples: list[int]) -> list[int]:
        return samples

    def num_tokens(self, index: int) -> int:
        return int(self.sizes[index].max())

    def num_tokens_vec(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.sizes[np.asarray(indices)].max(axis=1)


@dataclass
class Sampling:
    """Probabilities that a test changes, after every so many batches."""

    probabilities: NDArray[np.float64] = field(default_factory=lambda: np.array([0.5, 0.3, 0.2]))
    every: int | None = None

    def batches_until_change(self, epoch: int) -> int | None:
        return self.every


def made(
    sampling: Sampling,
    sizes: Sequence[int] = SIZES,
    *,
    packing: Packing = TENS,
    shards: int = 1,
    shard: int = 0,
    prepared: list[int] | None = None,
    **settings: Any,
) -> LanguageBatches:
    generator = np.random.default_rng(7)
    parts = [Sentences(generator.integers(3, 30, (size, 2))) for size in sizes]
    languages = [Language(f"l{n}", part, np.arange(len(part))) for n, part in enumerate(parts)]
    whole = Sentences(np.concatenate([part.sizes for part in parts]))
    return LanguageBatches(
        whole,
        languages,
        sampling,
        packing,
        **{
            "by_sentence": False,
            "in_shards": False,
            "sentences": None,
            "prepare": (prepared if prepared is not None else []).append,
            "seed": 1,
            "num_shards": shards,
            "shard_id": shard,
            **settings,
        },
    )


def language_of(sentence: int, sizes: Sequence[int] = SIZES) -> int:
    return int(np.searchsorted(np.cumsum(sizes), sentence, side="right"))


def counts(batches: Sequence[Sequence[int]]) -> Counter[int]:
    return Counter(language_of(sentence) for batch in batches for sentence in batch)


def epoch(batches: LanguageBatches) -> list[list[int]]:
    return list(batches.next_epoch_itr())


def test_a_language_for_every_batch() -> None:
    batches = made(Sampling())
    read = epoch(batches)
    assert len(read) == len(batches) == 53  # the batches that all sentences make once
    languages = [{language_of(sentence) for sentence in batch} for batch in read]
    assert all(len(one) == 1 for one in languages)
    drawn = Counter(next(iter(one)) for one in languages)
    for language, probability in enumerate([0.5, 0.3, 0.2]):
        assert abs(drawn[language] - 53 * probability) < 1


def test_a_language_for_every_sentence() -> None:
    batches = made(Sampling(), by_sentence=True)
    read = epoch(batches)
    assert len(read) == 53
    assert any(len({language_of(sentence) for sentence in batch}) > 1 for batch in read)
    drawn = counts(read)
    for language, probability in enumerate([0.5, 0.3, 0.2]):
        assert abs(drawn[language] - 530 * probability) <= 1


@pytest.mark.parametrize("by_sentence", [False, True])
def test_every_sentence_once_before_any_comes_again(by_sentence: bool) -> None:
    read = epoch(made(Sampling(np.array(SIZES) / sum(SIZES)), by_sentence=by_sentence))
    times = Counter(sentence for batch in read for sentence in batch)
    assert set(times) == set(range(sum(SIZES)))
    assert set(times.values()) == {1}
    many = counts(epoch(made(Sampling(np.array([0.1, 0.1, 0.8])), by_sentence=by_sentence)))
    assert many[2] > 300  # small languages come again and again
    times = Counter(
        sentence
        for batch in epoch(made(Sampling(np.array([0.1, 0.1, 0.8])), by_sentence=by_sentence))
        for sentence in batch
        if language_of(sentence) == 2
    )
    assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize("every", [1, 5, 17])
def test_short_segments_leave_no_sentence_out(every: int) -> None:
    """What does not fit into the batches of a segment comes in the next one."""
    packing = Packing(max_tokens=200, max_sentences=None, multiple=8)
    sampling = Sampling(np.array(SIZES) / sum(SIZES), every)
    batches = made(sampling, packing=packing, by_sentence=True, sentences=3 * sum(SIZES))
    read = [sentence for batch in epoch(batches) for sentence in batch]
    dealt = batches.state_dict()
    for language, size in enumerate(SIZES):
        of_it = [sentence for sentence in read if language_of(sentence) == language]
        assert dealt["dealt"][language] == len(of_it) + len(dealt["left"][language])
        times = Counter(of_it)
        assert len(times) == size or len(of_it) < size
        assert max(times.values()) - min(times.values()) <= 2  # passes overlap by what is left over


def test_shards_of_data_are_read_in_another_order_every_time() -> None:
    """fairseq makes a new iterator for every epoch then."""
    few = Sampling(np.array([0.02, 0.49, 0.49]))
    seen = [{i for batch in epoch(made(few, epoch=number)) for i in batch if i < SIZES[0]} for number in (1, 2, 3, 4)]
    assert len(set.union(*seen)) > 2 * max(map(len, seen))


@pytest.mark.parametrize("by_sentence", [False, True])
def test_a_change_takes_effect_with_the_next_segment(by_sentence: bool) -> None:
    sampling = Sampling(np.array([1 / 3] * 3), every=12)
    iterator = made(sampling, by_sentence=by_sentence).next_epoch_itr()
    before = counts(list(islice(iterator, 12)))
    sampling.probabilities = np.array([0.05, 0.05, 0.9])
    after = counts(list(islice(iterator, 12)))
    for language in range(3):
        assert abs(before[language] - 40) <= 10  # a batch
    assert after[2] >= 100
    assert sum(before.values()) == sum(after.values()) == 120


def test_the_length_of_an_epoch_does_not_depend_on_the_probabilities() -> None:
    for probabilities in ([0.98, 0.01, 0.01], [0.01, 0.01, 0.98]):
        batches = made(Sampling(np.array(probabilities)))
        assert len(batches) == len(epoch(batches)) == 53
    assert len(epoch(made(Sampling(), sentences=100))) == 10
    assert len(epoch(made(Sampling(), sentences=1000))) == 100


def test_no_sentence_is_left_out_where_batches_have_to_be_multiples() -> None:
    packing = Packing(max_tokens=200, max_sentences=None, multiple=8)
    batches = made(Sampling(), (13, 21, 5), packing=packing, sentences=400)
    read = epoch(batches)
    seen = {sentence for batch in read for sentence in batch}
    assert seen == set(range(39))
    assert all(len(batch) * max(batches.dataset.num_tokens(i) for i in batch) <= 200 for batch in read)


def test_what_is_read_depends_on_the_seed_alone() -> None:
    assert epoch(made(Sampling())) == epoch(made(Sampling()))
    assert epoch(made(Sampling())) != epoch(made(Sampling(), seed=2))
    batches = made(Sampling())
    first, second = epoch(batches), epoch(batches)
    assert batches.epoch == 2
    assert first != second


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_the_same(workers: int) -> None:
    sampling = Sampling(every=9)
    alone, helped = made(sampling).next_epoch_itr(), made(sampling, num_workers=workers, buffer_size=3).next_epoch_itr()
    for probabilities in ([0.2, 0.2, 0.6], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]):
        assert [next(alone) for _ in range(9)] == [next(helped) for _ in range(9)]
        sampling.probabilities = np.array(probabilities)


@pytest.mark.parametrize("by_sentence", [False, True])
def test_processes_share_the_batches(by_sentence: bool) -> None:
    whole = made(Sampling(every=12), sentences=480, by_sentence=by_sentence)
    assert len(whole) == 48
    halves = [
        made(Sampling(every=6), sentences=480, by_sentence=by_sentence, shards=2, shard=shard) for shard in (0, 1)
    ]
    read = [epoch(half) for half in halves]
    assert [len(one) for one in read] == [24, 24]
    assert [batch for row in zip(*read, strict=True) for batch in row] == epoch(whole)


def state_after(batches: LanguageBatches, consumed: int, epochs: int = 0) -> dict[str, Any]:
    for _ in range(epochs):
        epoch(batches)
    iterator = batches.next_epoch_itr()
    list(islice(iterator, consumed))
    return batches.state_dict()


@pytest.mark.parametrize("by_sentence", [False, True])
@pytest.mark.parametrize("consumed", [1, 8, 9, 10, 18, 52, 53])
def test_going_on_equals_going_straight(by_sentence: bool, consumed: int) -> None:
    sampling = Sampling(every=9)
    straight = made(sampling, by_sentence=by_sentence)
    state = state_after(straight, consumed, epochs=1)
    resumed = made(Sampling(sampling.probabilities, every=9), by_sentence=by_sentence, epoch=state["epoch"])
    resumed.load_state_dict(state)
    assert resumed.epoch == (3 if consumed == 53 else 2)
    iterator = resumed.next_epoch_itr()
    assert resumed.iterations_in_epoch == (0 if consumed == 53 else consumed)
    rest = epoch(straight) if consumed == 53 else list(straight._cur_epoch_itr)
    assert list(iterator) == rest
    assert epoch(resumed) == epoch(straight)


def test_going_on_with_another_number_of_processes() -> None:
    one = made(Sampling(), sentences=480)
    state = state_after(one, 24)
    halves = [made(Sampling(), sentences=480, shards=2, shard=shard) for shard in (0, 1)]
    read = []
    for half in halves:
        half.load_state_dict(state)
        iterator = half.next_epoch_itr()
        assert half.iterations_in_epoch == 12
        read.append(list(iterator))
    assert [batch for row in zip(*read, strict=True) for batch in row] == list(one._cur_epoch_itr)
    # and to a number that does not divide what was read
    thirds = [made(Sampling(), sentences=480, shards=5, shard=shard) for shard in range(5)]
    for third in thirds:
        third.load_state_dict(state)
        assert len(list(third.next_epoch_itr())) == len(third) - 4


@pytest.mark.parametrize("by_sentence", [False, True])
def test_going_on_with_other_settings_of_sampling(by_sentence: bool) -> None:
    """They count from the first batch on; what was drawn by the old ones and not read is read later."""
    state = state_after(made(Sampling(), by_sentence=by_sentence), 5)
    resumed = made(Sampling(np.array([0.0, 0.0, 1.0])), by_sentence=by_sentence)
    resumed.load_state_dict(state)
    assert counts(list(resumed.next_epoch_itr())).keys() == {2}
    dealt = resumed.state_dict()
    straight = counts(list(islice(made(Sampling(), by_sentence=by_sentence).next_epoch_itr(), 5)))
    for language in (0, 1):
        held = len(dealt["left"][language])
        assert (dealt["dealt"][language] - held if by_sentence else 10 * dealt["dealt"][language]) == straight[language]
    often = made(Sampling(every=2), by_sentence=by_sentence)  # an actor where there was none
    often.load_state_dict(state)
    next(often.next_epoch_itr())
    assert often.state_dict()["segment"]["length"] == 2


def test_groups_of_batches() -> None:
    """fairseq asks for as many batches as an update takes, and looks no further ahead."""
    sampling = Sampling(np.array([0.0, 0.0, 1.0]), every=4)
    groups = iterators.GroupedIterator(made(sampling).next_epoch_itr(), 2)
    for _ in range(2):
        assert counts(next(groups)).keys() == {2}
    sampling.probabilities = np.array([1.0, 0.0, 0.0])
    assert counts(next(groups)).keys() == {0}


@pytest.mark.parametrize("by_sentence", [False, True])
def test_keeping_some_sentences(by_sentence: bool) -> None:
    prepared: list[int] = []
    batches = made(Sampling(), by_sentence=by_sentence, prepared=prepared)
    epoch(batches)
    kept = [np.arange(0, size, 2) for size in SIZES]
    batches.keep(kept)
    assert batches.filtered
    first = np.cumsum(SIZES) - SIZES
    allowed = {int(start + place) for start, places in zip(first, kept, strict=True) for place in places}
    assert {sentence for batch in epoch(batches) for sentence in batch} <= allowed
    assert prepared == [1, 2]
    resumed = made(Sampling(), by_sentence=by_sentence, prepared=prepared)
    resumed.load_state_dict(state_after(batches, 5))
    assert resumed.filtered
    assert list(resumed.next_epoch_itr()) == list(batches._cur_epoch_itr)
    assert prepared == [1, 2, 3]  # an epoch that is gone on with is not prepared again


def test_other_languages() -> None:
    state = state_after(made(Sampling()), 3)
    other = made(Sampling(np.array([0.5, 0.5])), (10, 20))
    with pytest.raises(ConfigurationError, match=r"trained with the languages l0, l1, l2, but this run has .* l0, l1:"):
        other.load_state_dict(state)
    with pytest.raises(ConfigurationError, match="--sample-instance False, but this run has --sample-instance True"):
        made(Sampling(), by_sentence=True).load_state_dict(state)
    with pytest.raises(ConfigurationError, match="written without language sampling"):
        made(Sampling()).load_state_dict({"epoch": 1, "iterations_in_epoch": 0, "version": 2, "shuffle": True})


def test_a_language_without_sentences() -> None:
    with pytest.raises(ConfigurationError, match="l1 has no training sentences that the model takes"):
        made(Sampling(), (10, 0, 5))


def test_a_curriculum() -> None:
    with pytest.raises(ConfigurationError, match="--curriculum"):
        made(Sampling()).next_epoch_itr(shuffle=False)
