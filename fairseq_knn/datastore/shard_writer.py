"""Writing one shard: entries arrive batch by batch and are committed in order."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import ARRAYS, array_path, commit_path
from fairseq_knn.datastore.manifest import ShardRecord
from fairseq_knn.datastore.npy import write_npy
from fairseq_knn.datastore.spool import KeySpool
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.atomic import write_json


class ShardWriter:
    """Collects the entries of one sentence range and commits them as one shard.

    Args:
        root: directory of the datastore.
        shard: number of the shard.
        first, last: the sentences it may hold, ``[first, last)``.
        vocabulary_size: values are below it; decides their dtype.
    """

    def __init__(self, root: Path, shard: int, first: int, last: int, vocabulary_size: int) -> None:
        self.root, self.shard, self.first, self.last = root, shard, first, last
        self._vocabulary_size = vocabulary_size
        self._value_dtype = np.dtype(np.int32 if vocabulary_size < 2**31 else np.int64)
        self._spool = KeySpool(root, shard)
        self._dimension = 0
        self._runs: dict[int, tuple[int, int]] = {}
        self._values: dict[int, np.ndarray] = {}
        self._log_probs: dict[int, np.ndarray] = {}
        self._documents: dict[int, np.ndarray] = {}

    def add(
        self,
        sentences: Sequence[int],
        lengths: Sequence[int],
        keys: np.ndarray,
        values: np.ndarray,
        log_probs: np.ndarray | None = None,
        documents: np.ndarray | None = None,
    ) -> None:
        """Add whole sentences.

        Args:
            sentences: their indices in the split.
            lengths: number of target tokens of each.
            keys: any float dtype (sum of lengths, d), sentence after sentence; stored as float16.
            values: target token ids (sum of lengths,).
            log_probs: natural logarithm of the probability the model gives each of these tokens, any float dtype (sum
                of lengths,), stored as float32; ``None``, then for all sentences of the shard, if they are not known.
            documents: number of the document each of these tokens is in, ascending over the shard, integers (sum of
                lengths,); ``None``, then for all sentences of the shard, if there are no documents.

        Raises:
            DatastoreError: the keys are not finite in float16, or the log-probabilities not at all (the message names
                the sentence).
            ValueError: the arguments do not fit together, or not to this shard.
        """
        with np.errstate(over="ignore"):  # found below
            keys = keys.astype(np.float16, copy=False)
        self._check(sentences, lengths, keys, values, log_probs, documents)
        owners = np.repeat(np.asarray(sentences), lengths)
        _require_finite(np.isfinite(keys).all(axis=1), owners, "keys that are NaN or beyond the range of float16")
        if log_probs is not None:
            _require_finite(np.isfinite(log_probs), owners, "probabilities that are NaN or 0")
        row = self._spool.append(keys)
        self._dimension = keys.shape[1]
        offset = 0
        for sentence, length in zip(sentences, lengths, strict=True):
            self._runs[sentence] = (row + offset, length)
            self._values[sentence] = values[offset : offset + length].astype(self._value_dtype)
            if log_probs is not None:
                self._log_probs[sentence] = log_probs[offset : offset + length].astype(np.float32)
            if documents is not None:
                self._documents[sentence] = documents[offset : offset + length].astype(np.int64)
            offset += length

    def _check(
        self,
        sentences: Sequence[int],
        lengths: Sequence[int],
        keys: np.ndarray,
        values: np.ndarray,
        log_probs: np.ndarray | None,
        documents: np.ndarray | None,
    ) -> None:
        if not len(keys) == len(values) == sum(lengths):
            raise ValueError(f"{len(keys)} keys and {len(values)} values for sentences of {sum(lengths)} tokens")
        there = {"log-probabilities": bool(self._log_probs), "documents": bool(self._documents)}
        for name, given in (("log-probabilities", log_probs), ("documents", documents)):
            if given is not None and len(given) != len(keys):
                raise ValueError(f"{len(keys)} keys and {len(given)} {name}")
            if self._runs and there[name] != (given is not None):
                raise ValueError(f"shard {self.shard} has {name} of some of its keys only")
        if self._runs and keys.shape[1] != self._dimension:
            raise ValueError(f"keys of dimension {keys.shape[1]} after keys of {self._dimension}")
        new = {s for s in sentences if self.first <= s < self.last and s not in self._runs}
        if len(new) < len(sentences):
            raise ValueError(
                f"shard {self.shard} holds each sentence of [{self.first}, {self.last}) once; given are "
                f"{list(sentences)}"
            )
        if len(values) and not 0 <= values.min() <= values.max() < self._vocabulary_size:
            raise ValueError(
                f"values from {values.min()} to {values.max()} are not all among the "
                f"{self._vocabulary_size} ids of the vocabulary"
            )

    @property
    def entries(self) -> int:
        """Entries added so far."""
        return sum(length for _, length in self._runs.values())

    def commit(self) -> ShardRecord:
        """Write the arrays ordered by (sentence, position), then the record that makes them count."""
        order = sorted(self._runs)
        lengths = np.array([self._runs[s][1] for s in order], dtype=np.int64)
        entries = int(lengths.sum())
        arrays = {}
        if entries:
            sentence_ids = np.array(order, dtype=np.int32 if self.last < 2**31 else np.int64)
            highest = max((int(self._documents[s].max()) for s in order if len(self._documents.get(s, ()))), default=0)
            document_dtype = np.int32 if highest < 2**31 else np.int64
            contents = {
                "keys": self._spool.read(self._runs[s] for s in order),
                "values": (self._values[s] for s in order),
                "sentences": iter((np.repeat(sentence_ids, lengths),)),
                "positions": (np.arange(length, dtype=np.int32) for length in lengths),
                "log_probs": (self._log_probs[s] for s in order),
                "documents": (self._documents[s].astype(document_dtype) for s in order),
            }
            types = {
                "keys": np.dtype(np.float16),
                "values": self._value_dtype,
                "sentences": sentence_ids.dtype,
                "positions": np.dtype(np.int32),
                "log_probs": np.dtype(np.float32),
                "documents": np.dtype(document_dtype),
            }
            absent = {
                name for name, parts in (("log_probs", self._log_probs), ("documents", self._documents)) if not parts
            }
            for name in ARRAYS:
                if name in absent:
                    continue
                shape = (entries, self._dimension) if name == "keys" else (entries,)
                arrays[name] = write_npy(array_path(self.root, name, self.shard), shape, types[name], contents[name])
        record = ShardRecord(
            entries=entries,
            dimension=self._dimension if entries else 0,
            sentences=len(order),
            skipped=self.last - self.first - len(order),
            value_dtype=self._value_dtype.name,
            arrays=arrays,
        )
        write_json(commit_path(self.root, self.shard), asdict(record))
        self.discard()
        return record

    def discard(self) -> None:
        """Delete the temporary file."""
        self._spool.close()


def _require_finite(finite: np.ndarray, owners: np.ndarray, what: str) -> None:
    """
    Args:
        finite: which entries are, bool (n,).
        owners: their sentences, (n,).
        what: the model gives otherwise.

    Raises:
        DatastoreError: some are not.
    """
    if not finite.all():
        raise DatastoreError(
            f"the model gives {what} for sentence {owners[np.argmin(finite)]}: check the checkpoint, or run without "
            "--fp16"
        )
