"""Datastores from a model that is loaded already, in a notebook or a program of one's own."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fairseq_knn.datastore import LANGUAGE_MODEL, Plan
from fairseq_knn.datastore.model_facts import ModelFacts
from fairseq_knn.datastore.sequences import SequenceWriter
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.huggingface.fitting import facts as huggingface_facts
from fairseq_knn.huggingface.fitting import is_huggingface
from fairseq_knn.huggingface.storing import StoringModel

logger = logging.getLogger("fairseq_knn")

# A block of text has about a thousand tokens, a sentence thirty.
_SHARD_SEQUENCES = {True: 512, False: 8192}


class _Storing(Protocol):
    """What sits in a model, whatever framework that is of."""

    writer: SequenceWriter | None

    def remove(self) -> None: ...


class KNNSaver:
    """Builds a datastore from the forwards of a causal or encoder-decoder model.

    ::

        saver = KNNSaver("STORE", sequences=len(blocks))
        saver.break_into(model)
        for batch in batches[saver.stored :]:  # here of one sequence each
            model(input_ids=batch, labels=batch)
        saver.break_out()

    Every forward of a model of transformers with labels stores a key and a value for each position whose label is not
    -100 (of a causal model: whose next label is not), in float16, with the model's log-probability of it. A model of
    fairseq stores what is scored (``hub.score(sentence)`` of a language model, or any criterion), padding excluded.

    The sequences of all batches count through; :attr:`stored` of them are there already when an interrupted build is
    resumed, and are left out by the caller.

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
        self._storing: _Storing | None = None
        self._writer: SequenceWriter | None = None

    def break_into(self, model: Any) -> Any:
        """Store what *model* computes from now on; the same model is returned.

        Raises:
            ConfigurationError: it is a model of neither framework, has no such hidden state, or is in use already.
            DatastoreError: there is a finished datastore, or an unfinished one of something else.
        """
        if self._storing is not None:
            raise ConfigurationError("this saver is in a model already: break_out() first, or make another one")
        storing, known = _enter(model, self._key)
        try:
            documents = self._documents if known.kind == LANGUAGE_MODEL else None
            self._writer = storing.writer = SequenceWriter(
                self._path, self._plan(known), documents, overwrite=self._overwrite
            )
        except BaseException:
            storing.remove()
            raise
        self._storing = storing
        return model

    def _plan(self, model: ModelFacts) -> Plan:
        causal = model.kind == LANGUAGE_MODEL
        documents = hashlib.sha256(np.asarray(self._documents, np.int64).tobytes()).hexdigest() if causal else ""
        return Plan(
            model=model.fingerprint,
            model_name=model.name,
            vocabulary=model.vocabulary,
            vocabulary_size=model.vocabulary_size,
            key=self._key,
            split=self._split,
            data=self._data or documents,
            sentences=self._sequences,
            shard_sentences=self._shard_sequences or _SHARD_SEQUENCES[causal],
            kind=model.kind,
        )

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
        if self._storing is not None:
            writer = self._active
            self._storing.remove()
            self._storing = self._writer = None
            try:
                writer.finish()
            except DatastoreError as error:
                logger.warning(f"{error}")

    @property
    def _active(self) -> SequenceWriter:
        if self._writer is None:
            raise ConfigurationError("this saver is in no model: break_into(model) first")
        return self._writer


def _enter(model: Any, key: str) -> tuple[_Storing, ModelFacts]:
    """Sit in a model of either framework, and what a datastore has to know of it."""
    if is_huggingface(model):
        known, single = huggingface_facts(model), model
        storing: _Storing = StoringModel(model, key)
    else:
        # fairseq takes seconds to load, and a model of transformers needs none of it.
        from fairseq_knn.hub.models import facts, models_of
        from fairseq_knn.hub.storing import StoringHub

        models = models_of(model)
        if len(models) > 1:
            raise ConfigurationError(
                f"an ensemble of {len(models)} models has as many hidden states: pass one of them (hub.models[0])"
            )
        single = models[0]
        known = facts(single)
        storing = StoringHub(single, key)
    if single.training:
        logger.warning("the model is in training mode, so dropout disturbs what is stored: call eval() first")
    return storing, known
