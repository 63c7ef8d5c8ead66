"""Storing what a model of transformers computes under its labels."""

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.datastore import LANGUAGE_MODEL, DatastoreWriter, Plan
from fairseq_knn.datastore.shard_writer import ShardWriter
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.huggingface.call import IGNORED, Call
from fairseq_knn.huggingface.fitting import facts
from fairseq_knn.huggingface.forward_hook import ForwardHook

logger = logging.getLogger("fairseq_knn")

_SECONDS_BETWEEN_REPORTS = 10.0
_SCORED_NUMBERS = 1 << 26  # log-probabilities that are computed at a time: 256 MiB
# A block of text has about a thousand tokens, a sentence thirty.
_SHARD_SEQUENCES = {True: 512, False: 8192}


class KNNSaver:
    """Builds a datastore from the forwards of a causal or encoder-decoder model.

    ::

        saver = KNNSaver("STORE", sequences=len(blocks))
        saver.break_into(model)
        for batch in batches[saver.stored :]:  # here of one sequence each
            model(input_ids=batch, labels=batch)
        saver.break_out()

    Every forward with labels stores a key and a value for each position whose label is not -100 (of a causal model:
    whose next label is not), in float16, with the model's log-probability of it. The sequences of all batches count
    through; :attr:`stored` of them are there already when an interrupted build is resumed, and are left out by the
    caller.

    Args:
        path: directory of the datastore.
        sequences: how many there will be.
        key: hidden state that is stored: ``ffn_input``, ``ffn_output`` or ``decoder_output``.
        documents: of a language model, which document each sequence is of, ascending, int64 (sequences,): sequences of
            one document, one after the other, predict a text without gaps, as windows with an overlap do. ``None``:
            each has its own, for the first token of a block that has no context is predicted by nothing.
        split, data: name and fingerprint of what is stored; a resumed build of something else is refused.
        shard_sequences: sequences per file, which an interrupted build loses at most; ``None`` chooses.
        overwrite: replace a finished datastore.

    Raises:
        ConfigurationError: a number is out of its range.
    """

    def __init__(
        self,
        path: Path | str,
        sequences: int,
        *,
        key: str = "ffn_input",
        documents: Sequence[int] | np.ndarray | None = None,
        split: str = "train",
        data: str = "",
        shard_sequences: int | None = None,
        overwrite: bool = False,
    ) -> None:
        for name, number in (("sequences", sequences), ("shard_sequences", shard_sequences)):
            if number is not None and number < 1:
                raise ConfigurationError(f"{name} is {number}, but must be a whole number, at least 1")
        if documents is not None and (len(documents) != sequences or (np.diff(documents) < 0).any()):
            raise ConfigurationError(
                f"there are {len(documents)} numbers of documents for {sequences} sequences: give each one, ascending"
            )
        self._path, self._sequences, self._key = Path(path), sequences, key
        self._documents = np.arange(sequences) if documents is None else np.asarray(documents)
        self._split, self._data = split, data
        self._shard_sequences, self._overwrite = shard_sequences, overwrite
        self._writing: _Writing | None = None

    def break_into(self, model: Any) -> Any:
        """Store what *model* computes from now on; the same model is returned.

        Raises:
            ConfigurationError: it is no model of transformers, has no such hidden state, or is in use already.
            DatastoreError: there is a finished datastore, or an unfinished one of something else.
        """
        if self._writing is not None:
            raise ConfigurationError("this saver is in a model already: break_out() first, or make another one")
        model_facts = facts(model)
        if model.training:
            logger.warning("the model is in training mode, so dropout disturbs what is stored: call model.eval() first")
        causal = model_facts.kind == LANGUAGE_MODEL
        documents = hashlib.sha256(np.asarray(self._documents, np.int64).tobytes()).hexdigest() if causal else ""
        plan = Plan(
            model=model_facts.fingerprint,
            model_name=model_facts.name,
            vocabulary=model_facts.vocabulary,
            vocabulary_size=model_facts.vocabulary_size,
            key=self._key,
            split=self._split,
            data=self._data or documents,
            sentences=self._sequences,
            shard_sentences=self._shard_sequences or _SHARD_SEQUENCES[causal],
            kind=model_facts.kind,
        )
        self._writing = _Writing(model, self._path, plan, self._documents if causal else None, self._overwrite)
        return model

    @property
    def stored(self) -> int:
        """How many of the first sequences are in the datastore for good; those that follow are to come.

        Raises:
            ConfigurationError: :meth:`break_into` was not called.
        """
        return self._active.first

    @property
    def entries(self) -> int:
        """Entries stored since :meth:`break_into`."""
        return self._active.entries

    def finish(self) -> None:
        """Complete the datastore.

        Raises:
            DatastoreError: there were fewer sequences than announced. What is complete of them is kept.
        """
        self._active.finish()

    def break_out(self) -> None:
        """Make the model what it was before, and complete the datastore if all sequences were there."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.remove()
            try:
                writing.finish()
            except DatastoreError as error:
                logger.warning(f"{error}")

    @property
    def _active(self) -> "_Writing":
        if self._writing is None:
            raise ConfigurationError("this saver is in no model: break_into(model) first")
        return self._writing


class _Writing(ForwardHook):
    """A build that has begun.

    Args:
        model: whose forwards are stored.
        path: directory of the datastore.
        plan: what it is to be.
        documents: of every sequence of a language model.
        overwrite: replace a finished datastore.
    """

    def __init__(self, model: Any, path: Path, plan: Plan, documents: np.ndarray | None, overwrite: bool) -> None:
        super().__init__(model, plan.key)
        try:
            self._writer = DatastoreWriter(path, plan, overwrite=overwrite)
            pending = self._writer.pending()
        except BaseException:
            self.remove()
            raise
        self._plan, self._documents = plan, documents
        # One process commits shards in order.
        self.first = self._next = plan.sentence_range(pending[0])[0] if pending else plan.sentences
        self._shard: ShardWriter | None = None
        self.entries = 0
        self._finished = False
        self._started = self._reported = time.monotonic()
        if self.first:
            logger.info(f"{self.first:,} of {plan.sentences:,} sequences are in {path} already")

    def after(self, call: Call, states: Tensor) -> Any:
        following = call.following
        if following is None:
            raise ConfigurationError(
                "a datastore is made of labels, and this forward has none: pass labels=..., and break_out() before "
                "generate()"
            )
        if following.shape != states.shape[:2]:
            raise ConfigurationError(
                f"there are labels of {tuple(following.shape)} positions, but hidden states of "
                f"{tuple(states.shape[:2])}: leave out logits_to_keep"
            )
        if self._next + len(following) > self._plan.sentences:
            raise DatastoreError(
                f"there are more sequences than the {self._plan.sentences:,} that {self._writer.root} was announced to "
                f"hold: announce all, and leave out the first {self.first:,} (saver.stored), which it holds already"
            )
        following = following.to(states.device)
        wanted = following != IGNORED
        lengths = wanted.sum(dim=1).tolist()
        self._add(
            lengths,
            states[wanted].to(torch.float16).cpu().numpy(),
            following[wanted].cpu().numpy(),
            _log_probs(call.logits, following, wanted).cpu().numpy(),
        )
        return call.output

    def _add(self, lengths: list[int], keys: np.ndarray, values: np.ndarray, log_probs: np.ndarray) -> None:
        """Store whole sequences, in whatever shards they fall."""
        row = 0
        for length in lengths:
            if self._shard is None:
                self._shard = self._writer.open_shard(self._next // self._plan.shard_sentences)
            rows = slice(row, row + length)
            documents = None
            if self._documents is not None:
                documents = np.full(length, self._documents[self._next], np.int64)
            if length:
                self._shard.add([self._next], [length], keys[rows], values[rows], log_probs[rows], documents)
            row += length
            self._next += 1
            self.entries += length
            if self._next == self._plan.sentence_range(self._shard.shard)[1]:
                self._commit()
        if time.monotonic() - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._report("storing")

    def _commit(self) -> None:
        assert self._shard is not None
        record = self._shard.commit()
        self._report(f"shard {self._shard.shard} committed ({record.entries:,} entries)")
        self._shard = None

    def _report(self, what: str) -> None:
        self._reported = time.monotonic()
        elapsed = max(self._reported - self._started, 1e-9)
        left = elapsed / max(self._next - self.first, 1) * (self._plan.sentences - self._next)
        logger.info(
            f"{what} | {self._next:,}/{self._plan.sentences:,} sequences, {self.entries:,} entries, "
            f"{self.entries / elapsed:,.0f} entries/s, {int(left) // 60}:{int(left) % 60:02d} left"
        )

    def finish(self) -> None:
        if self._finished:
            return
        if self._next < self._plan.sentences:
            if self._shard is not None:
                self._shard.discard()
                self._shard = None
            first = self._next // self._plan.shard_sentences * self._plan.shard_sentences
            raise DatastoreError(
                f"{self._writer.root} is unfinished, for {self._next:,} of the {self._plan.sentences:,} sequences it "
                f"was announced to hold have come: give it those from number {first:,} on, which saver.stored tells "
                "after another break_into()"
            )
        manifest = self._writer.finish()
        self._finished = True
        assert manifest is not None
        logger.info(
            f"datastore {self._writer.root} finished: {manifest.entries:,} entries of dimension {manifest.dimension}"
        )


def _log_probs(logits: Tensor, following: Tensor, wanted: Tensor) -> Tensor:
    """The model's log-probability of every wanted label, float32 (m,)."""
    rows = wanted.reshape(-1).nonzero().squeeze(-1)
    flat, targets = logits.detach().reshape(-1, logits.size(-1)), following.reshape(-1)
    parts = []
    for part in torch.split(rows, max(1, _SCORED_NUMBERS // flat.size(-1))):
        scores = flat[part].float()
        parts.append(scores.gather(-1, targets[part].unsqueeze(-1)).squeeze(-1) - scores.logsumexp(dim=-1))
    return torch.cat(parts) if parts else flat.new_zeros(0, dtype=torch.float32)
