"""What an expert expects after every reference of a split, kept on disk.

An expert is frozen and references stay, so its likeliest tokens are the same in every epoch. A cache is a directory
with ``manifest.json`` (what it was made from, sizes and SHA-256 of the files) and three arrays: ``offsets.npy``, int64
(sentences + 1,), where each sentence's positions begin; ``tokens.npy``, int32 (positions, k), likeliest first;
``probabilities.npy``, float32 (positions, k). Half precision would save a quarter of the space, but then training with
a cache would not be, to the last bit, the same as training without.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_knn.datastore.sharded import size_fault
from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.storage.atomic import read_json
from fairseq_knn.storage.digest import file_digest, short

SCHEMA = 1
MANIFEST = "manifest.json"
OFFSETS, TOKENS, PROBABILITIES = "offsets.npy", "tokens.npy", "probabilities.npy"


class ExpertCache:
    """Beliefs of an expert at the positions of a split's references; see :meth:`open`."""

    def __init__(self, offsets: NDArray[np.int64], tokens: NDArray[np.int32], probabilities: NDArray[np.float32]):
        self._offsets, self._tokens, self._probabilities = offsets, tokens, probabilities

    @classmethod
    def open(cls, directory: Path, description: Mapping[str, Any]) -> "ExpertCache":
        """Open a finished cache. Its files are read once, to compare their digests; then they are memory-mapped.

        Args:
            directory: of the split.
            description: what the content depends on, as JSON.

        Raises:
            ConfigurationError: the cache was made for something else.
            UserError: it is missing, unfinished or damaged.
        """
        try:
            manifest = read_json(directory / MANIFEST)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"{directory} holds no finished cache of an expert: run the same command again to have it made, what "
                "is finished is kept"
            ) from error
        again = "delete the directory, and it is made again"
        try:
            check_made_for(directory, manifest["made"], description)
            for name, record in manifest["files"].items():
                if fault := size_fault(directory / name, record["bytes"]):
                    raise UserError(f"{directory / name} {fault}: {again}")
                if file_digest(directory / name) != record["sha256"]:
                    raise UserError(f"{directory / name} is damaged (its SHA-256 is another than noted): {again}")
            offsets, tokens, probabilities = (
                np.load(directory / name, mmap_mode="r") for name in (OFFSETS, TOKENS, PROBABILITIES)
            )
        except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(f"{directory} is damaged ({error}): {again}") from error
        return cls(offsets, tokens, probabilities)

    def beliefs(self, sentences: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest tokens at every position of some sentences, one sentence after the other.

        Args:
            sentences: their numbers in the split.

        Returns:
            tokens int64 (n, k) and probabilities float32 (n, k), the two parts of a
            :class:`~fairseq_knn.imitation.beliefs.SparseBelief`; positions of each sentence int64 (B,), n together.
        """
        numbers = np.asarray(sentences, np.int64)
        first, end = self._offsets[numbers], self._offsets[numbers + 1]
        lengths = end - first
        # [first, first + 1, ..., end - 1] of every sentence.
        rows = np.arange(lengths.sum()) + np.repeat(end - np.cumsum(lengths), lengths)
        return (
            torch.from_numpy(self._tokens[rows].astype(np.int64)),
            torch.from_numpy(self._probabilities[rows]),
            torch.from_numpy(lengths),
        )


def made_for(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a cache notes about its origin: the description as JSON gives it back, with the version of the format."""
    made: dict[str, Any] = json.loads(json.dumps({**description, "schema": SCHEMA}))
    return made


def check_made_for(directory: Path, found: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """
    Args:
        directory: of the cache, for the message.
        found: what it was made for.
        description: what it is to be used for.

    Raises:
        ConfigurationError: these differ.
    """
    wanted = made_for(description)
    for name in sorted({*wanted, *found}):
        if found.get(name) != wanted.get(name):
            raise ConfigurationError(
                f"{directory} is the cache of another expert or split ({name} {_shorten(found.get(name))}, this run "
                f"has {_shorten(wanted.get(name))}): name another directory with --kd-cache, or delete this one"
            )


def _shorten(value: Any) -> Any:
    return short(value) if isinstance(value, str) and len(value) == 64 else value
