"""Batches of languages that are drawn by probabilities which change while the data is read."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import torch
from fairseq.data import FairseqDataset, iterators
from numpy.typing import NDArray

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.decks import Deck
from fairseq_knn.sampling.drawing import draw_languages, stratified_counts
from fairseq_knn.sampling.filtering import pack_kept, unpack_kept
from fairseq_knn.tasks.dds.language import Language
from fairseq_knn.tasks.dds.packing import Indices, Packing
from fairseq_knn.tasks.dds.random_streams import Stream, generator
from fairseq_knn.tasks.dds.segment import Segment


class Sampling(Protocol):
    """Who decides what is read."""

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of the languages, float64 (n,); looked at when a segment begins."""

    def batches_until_change(self, epoch: int) -> int | None:
        """How many batches a process reads until the probabilities may change; ``None``: they never do."""


class LanguageBatches(iterators.EpochBatchIterating):
    """An epoch of batches that is drawn segment by segment.

    Which batches come is decided in the main process when a segment begins, so that workers need not know the
    probabilities and a change takes effect with the very next segment. An epoch has a fixed number of batches: those
    that all languages would have once, or as many of *sentences*.

    Args:
        dataset: all languages in a row, each sentence once.
        languages: in the same order, with their sentences that are not too long.
        sampling: decides.
        packing: how sentences become batches.
        by_sentence: draw a language for every sentence, so that batches hold several; otherwise for every batch.
        sentences: of an epoch; ``None``: all of *languages*.
        seed: of everything random here.
        prepare: called before an epoch is begun, with its number.
        in_shards: whether every epoch has other data, and so batches of its own.
        num_shards, shard_id: how many processes train, and which one this is.
        num_workers, buffer_size: stock's.
        epoch: the first one.
    """

    def __init__(
        self,
        dataset: FairseqDataset,
        languages: Sequence[Language],
        sampling: Sampling,
        packing: Packing,
        *,
        by_sentence: bool,
        sentences: int | None,
        prepare: Callable[[int], None],
        in_shards: bool,
        seed: int,
        num_shards: int,
        shard_id: int,
        num_workers: int = 0,
        buffer_size: int = 0,
        epoch: int = 1,
    ) -> None:
        self.dataset = dataset
        self.epoch = max(epoch, 1)
        self.packing = packing
        self._all = list(languages)
        sizes = [len(language.dataset) for language in languages]
        self._first = np.cumsum(sizes) - sizes
        self._sampling, self._prepare = sampling, prepare
        self._by_sentence, self._sentences, self._seed = by_sentence, sentences, seed
        self._shards, self._shard = num_shards, shard_id
        self._workers, self._buffer = num_workers, min(buffer_size, 20)
        self._kept: list[Indices] | None = None
        self._segment: Segment | None = None
        self._drawn = 0
        self._in_shards, self._born = in_shards, self.epoch
        self._left: list[list[int]] = [[] for _ in languages]
        self._cur_epoch_itr: iterators.CountingIterator | None = None
        self._next_epoch_itr: iterators.CountingIterator | None = None
        self._lay_out([0] * len(self._all))

    # --- decks ------------------------------------------------------------------------------------

    @property
    def languages(self) -> list[Language]:
        """What is read."""
        if self._kept is None:
            return self._all
        return [language.only(kept) for language, kept in zip(self._all, self._kept, strict=True)]

    @property
    def filtered(self) -> bool:
        """Whether sentences were taken out with :meth:`keep`."""
        return self._kept is not None

    def keep(self, kept: Sequence[Indices]) -> None:
        """From now on, read some sentences only; every language begins a new pass.

        Args:
            kept: for each language, places among its members at the construction, ascending.
        """
        self._kept = list(kept)
        self._left = [[] for _ in self._all]
        self._lay_out([0] * len(self._all))

    def _lay_out(self, dealt: Sequence[int]) -> None:
        for language in self.languages:
            if not len(language.members):
                raise ConfigurationError(
                    f"{language.name} has no training sentences that the model takes: leave it out of --lang-pairs, or "
                    "raise --max-source-positions, --max-target-positions and --max-tokens"
                )
        members = [first + language.members for first, language in zip(self._first, self.languages, strict=True)]
        batches = [self._batch_deck(number, sentences) for number, sentences in enumerate(members)]
        once = sum(map(len, batches))
        self._sentences_per_batch = sum(map(len, members)) / once
        whole = once if self._sentences is None else max(1, round(self._sentences / self._sentences_per_batch))
        self._length = math.ceil(whole / self._shards)
        self._batch_decks = [] if self._by_sentence else batches
        self._sentence_decks = (
            [self._sentence_deck(number, sentences) for number, sentences in enumerate(members)]
            if self._by_sentence
            else []
        )
        self._rewind(dealt)

    @property
    def _decks(self) -> Sequence[Deck[Any]]:
        return self._sentence_decks if self._by_sentence else self._batch_decks

    def _rewind(self, dealt: Sequence[int]) -> None:
        for deck, count in zip(self._decks, dealt, strict=True):
            deck.dealt = count

    def _generator(self, stream: Stream, *key: int) -> np.random.Generator:
        # Of data in shards, every epoch has batches of its own: without its number all would begin alike.
        return generator(self._seed, stream, self._born, *key)

    def _sentence_deck(self, language: int, sentences: Indices) -> Deck[Any]:
        return Deck(lambda turn: self._generator(Stream.PASSES, language, turn).permutation(sentences))

    def _batch_deck(self, language: int, sentences: Indices) -> Deck[Indices]:
        """Batches of sentences of similar length: which of equal length go together is new in every pass."""

        def shuffled(turn: int) -> list[Indices]:
            random = self._generator(Stream.PASSES, language, turn)
            batches = self.packing.pack(self.dataset, self._by_length(random.permutation(sentences)))
            return [batches[place] for place in random.permutation(len(batches))]

        return Deck(shuffled)

    def _by_length(self, sentences: Indices) -> Indices:
        """By source length, then by target length, then as they were."""
        sizes = self.dataset.sizes[sentences]
        return sentences[np.lexsort(sizes.T[::-1]) if sizes.ndim > 1 else np.argsort(sizes, kind="stable")]

    # --- segments ---------------------------------------------------------------------------------

    def _open(self, consumed: int) -> Segment:
        """A new segment, with the probabilities of now.

        Args:
            consumed: batches of the epoch that this process has read.
        """
        change = self._sampling.batches_until_change(self.epoch)
        length = len(self) - consumed if change is None else min(change, len(self) - consumed)
        self._drawn += 1
        return Segment(
            number=self._drawn,
            start=consumed * self._shards,
            length=length * self._shards,
            probabilities=list(map(float, self._sampling.probabilities)),
            dealt=[deck.dealt for deck in self._decks],
            left=[list(left) for left in self._left],
        )

    def _draw(self, segment: Segment) -> list[Indices]:
        """The batches of a segment, for all processes; the decks are after it then."""
        self._rewind(segment.dealt)
        random = self._generator(Stream.SEGMENTS, segment.number)
        probabilities = np.array(segment.probabilities)
        if not self._by_sentence:
            order = draw_languages(probabilities, segment.length, random)
            counts = np.bincount(order, minlength=len(self._batch_decks))
            dealt = [iter(deck.deal(count)) for deck, count in zip(self._batch_decks, counts, strict=True)]
            return [next(dealt[language]) for language in order]
        batches: list[Indices] = []
        self._left = [list(left) for left in segment.left]
        while (missing := segment.length - len(batches)) > 0:
            counts = stratified_counts(probabilities, math.ceil(missing * self._sentences_per_batch), random)
            sentences = np.concatenate([self._next(language, int(count)) for language, count in enumerate(counts)])
            packed = self.packing.pack(self.dataset, self._by_length(random.permutation(sentences)))
            batches += [packed[place] for place in random.permutation(len(packed))]
        self._put_back(batches[segment.length :])
        return batches[: segment.length]

    def _next(self, language: int, count: int) -> Indices:
        """Sentences of a language, those first that were dealt and not read."""
        left = self._left[language]
        taken, self._left[language] = left[:count], left[count:]
        slices = self._sentence_decks[language].slices(count - len(taken))
        return np.concatenate([np.array(taken, dtype=np.int64), *slices])

    def _put_back(self, batches: Sequence[Indices]) -> None:
        """Take back what was dealt last and is not read."""
        for batch in batches:
            languages = np.searchsorted(self._first, batch, side="right") - 1
            if self._by_sentence:
                for language, sentence in zip(languages.tolist(), batch.tolist(), strict=True):
                    self._left[language].append(sentence)
            else:
                self._batch_decks[languages[0]].dealt -= 1

    def _goes_on(self, segment: Segment, consumed: int) -> bool:
        """Whether a segment of the run that is resumed is what this run would read.

        It is not if the settings of sampling are others now.
        """
        change = self._sampling.batches_until_change(self.epoch)
        rest = (segment.start + segment.length) // self._shards - consumed
        same = list(segment.probabilities) == list(map(float, self._sampling.probabilities))
        return rest <= 0 or (same and (change is None or change >= rest))

    def _read(self, offset: int) -> Iterator[Any]:
        """This process's batches of the epoch, from the one of number *offset* on."""
        consumed = offset
        segment = self._segment if offset else None
        if segment is not None and not self._goes_on(segment, consumed):
            self._put_back(self._draw(segment)[consumed * self._shards - segment.start :])
            segment = None
        while consumed < len(self):
            if segment is None or consumed * self._shards >= segment.start + segment.length:
                segment = self._segment = self._open(consumed)
            batches = self._draw(segment)[consumed * self._shards - segment.start :]
            rows = len(batches) // self._shards
            if not rows:  # the segment was drawn for another number of processes
                segment = replace(segment, length=0)
                continue
            for batch in self._load(batches[self._shard : rows * self._shards : self._shards]):
                consumed += 1
                yield batch

    def _load(self, batches: list[Indices]) -> Any:
        loader = torch.utils.data.DataLoader(
            self.dataset,
            collate_fn=self.dataset.collater,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self._workers,
            pin_memory=True,
        )
        return iterators.BufferedIterator(self._buffer, loader) if self._buffer else loader

    # --- what fairseq asks of an iterator ------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of an epoch that this process reads."""
        return self._length

    @property
    def n(self) -> int:
        return self.iterations_in_epoch

    @property
    def iterations_in_epoch(self) -> int:
        iterator = self._next_epoch_itr if self._cur_epoch_itr is None else self._cur_epoch_itr
        return 0 if iterator is None else int(iterator.n)

    @property
    def next_epoch_idx(self) -> int:
        return self.epoch + 1 if self.end_of_epoch() else self.epoch

    def next_epoch_itr(
        self, shuffle: bool = True, fix_batches_to_gpus: bool = False, set_dataset_epoch: bool = True
    ) -> iterators.CountingIterator:
        if not shuffle:
            raise ConfigurationError(
                "--curriculum reads the first epochs in order, but the languages are drawn at random: leave it out"
            )
        self.epoch = self.next_epoch_idx
        if set_dataset_epoch:
            self.dataset.set_epoch(self.epoch)
        if self._next_epoch_itr is None:
            self._prepare(self.epoch)
        self._cur_epoch_itr = self._counted(0) if self._next_epoch_itr is None else self._next_epoch_itr
        self._next_epoch_itr = None
        return self._cur_epoch_itr

    def _counted(self, offset: int) -> iterators.CountingIterator:
        return iterators.CountingIterator(self._read(offset), start=offset, total=len(self))

    def end_of_epoch(self) -> bool:
        return self._cur_epoch_itr is not None and not self._cur_epoch_itr.has_next()

    @property
    def first_batch(self) -> Any:
        """Something of the right form: what a process without a batch computes with, to be forgotten."""
        return self.dataset.collater([self.dataset[int(self._first[0] + self._all[0].members[0])]])

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to draw the rest of the epoch again: plain numbers, strings and tensors."""
        ended = self.end_of_epoch()
        return {
            "version": 2,
            "epoch": self.epoch + 1 if ended else self.epoch,
            "iterations_in_epoch": 0 if ended else self.iterations_in_epoch,
            "shuffle": True,
            "languages": self._names,
            "shards": self._shards,
            "by_sentence": self._by_sentence,
            "drawn": self._drawn,
            "segment": None if self._segment is None else asdict(self._segment),
            "dealt": [deck.dealt for deck in self._decks],
            "left": self._left,
            "born": self._born,
            "kept": None
            if self._kept is None
            else [pack_kept(kept, len(language.members)) for kept, language in zip(self._kept, self._all, strict=True)],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run that saved this was, also with another number of processes.

        Raises:
            ConfigurationError: it read other languages, or in another way.
        """
        if "languages" not in state_dict:
            raise ConfigurationError(
                "the checkpoint in --save-dir was written without language sampling: choose another --save-dir, or "
                "pass --finetune-from-model CHECKPOINT to begin with its parameters"
            )
        for name, theirs, ours in (
            ("the languages {}", ", ".join(state_dict["languages"]), ", ".join(self._names)),
            ("--sample-instance {}", state_dict["by_sentence"], self._by_sentence),
        ):
            if theirs != ours:
                raise ConfigurationError(
                    f"the checkpoint in --save-dir was trained with {name.format(theirs)}, but this run has "
                    f"{name.format(ours)}: choose another --save-dir, or those settings"
                )
        self.epoch = state_dict["epoch"]
        if self._in_shards and not state_dict["iterations_in_epoch"]:
            return  # the rest is about the data of the epoch before
        if state_dict["kept"] is not None:
            self._kept = [
                _unpacked(mask, language) for mask, language in zip(state_dict["kept"], self._all, strict=True)
            ]
        self._born = state_dict["born"]
        self._lay_out(state_dict["dealt"])
        self._left = state_dict["left"]
        self._drawn = state_dict["drawn"]
        self._segment = None if state_dict["segment"] is None else Segment(**state_dict["segment"])
        position = state_dict["iterations_in_epoch"] * state_dict["shards"] // self._shards
        self._cur_epoch_itr, self._next_epoch_itr = None, self._counted(position) if position else None

    @property
    def _names(self) -> list[str]:
        return [language.name for language in self._all]


def _unpacked(mask: torch.Tensor, language: Language) -> Indices:
    if len(mask) != math.ceil(len(language.members) / 8):
        raise ConfigurationError(
            f"the checkpoint in --save-dir has a choice of sentences for {language.name}, but DATA has another number "
            "of them now: train on the same data, or choose another --save-dir"
        )
    return unpack_kept(mask)
