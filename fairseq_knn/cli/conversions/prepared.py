"""A conversion that was checked, and the check of the keys that all kinds share."""

from dataclasses import dataclass

import numpy as np

from fairseq_knn.datastore import Plan
from fairseq_knn.errors import DatastoreError

_TOLERANCE = 0.05  # of their length: float16, and another machine's arithmetic
_SHARE = 0.9  # of what was computed again has to agree
_SHARD_ENTRIES = 262_144


@dataclass(frozen=True)
class Prepared:
    """What is to be written.

    Args:
        plan: what the datastore will say of itself.
        lengths: number of entries of each of its sentences or blocks, int64 (n,).
        documents: of a language model, number of the document of every entry, int64 (N,).
        overwrite: whether a finished datastore is replaced.
    """

    plan: Plan
    lengths: np.ndarray
    documents: np.ndarray | None
    overwrite: bool

    @property
    def units(self) -> str:
        """What its lengths are of, in words."""
        if self.documents is None:
            return "sentences"
        documents = int(self.documents[-1]) + 1
        return f"blocks of {documents:,} documents" if documents > 1 else "blocks of one document"


def per_shard(lengths: np.ndarray, asked: int | None) -> int:
    """How many sentences or blocks of these lengths (n,) go into a shard: what is asked for, if anything is."""
    return asked or max(1, _SHARD_ENTRIES * len(lengths) // int(lengths.sum()))


def check_dimension(stored: int, computed: int, path: object) -> None:
    """
    Raises:
        DatastoreError: the keys are not of the dimension of the model's hidden states.
    """
    if computed != stored:
        raise DatastoreError(
            f"the keys of {path} have dimension {stored}, the hidden states of the model dimension {computed}: name "
            "the model that built it"
        )


def check_values(values: np.ndarray, vocabulary_size: int, path: object, vocabulary: str) -> None:
    """
    Args:
        values: token of every entry.
        vocabulary_size: number of symbols.
        path: of the datastore.
        vocabulary: whose symbols they are, in words.

    Raises:
        DatastoreError: a token is beyond the vocabulary.
    """
    largest = int(values.max())
    if largest >= vocabulary_size:
        raise DatastoreError(
            f"{path} holds token {largest}, but the {vocabulary} has {vocabulary_size:,} symbols: name the one it was "
            "built with"
        )


def judge(errors: np.ndarray, what: str, remedy: str, *, insists: bool) -> None:
    """Tell whether keys agree with those that the model computes.

    Args:
        errors: distance relative to the length of what was computed, of each sentence or block (n,).
        what: what was computed, in words.
        remedy: what to name if they do not.
        insists: whether the user wants the conversion anyway.

    Raises:
        DatastoreError: most of them do not agree.
    """
    agreeing = int((errors <= _TOLERANCE).sum())
    told = f"{what}, and the keys of {agreeing} agree"
    if agreeing < _SHARE * len(errors) and not insists:
        raise DatastoreError(f"{told}: name {remedy}, or insist with --knn-allow-mismatch")
    print(told)
