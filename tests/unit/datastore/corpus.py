"""A small corpus of keys and values, and building a datastore of it like the task does."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.datastore import DatastoreWriter, Plan


class Corpus:
    """Sentences of random lengths with a random key, value and log-probability for every token.

    Args:
        seed: of the lengths (from the constructor's arguments) and of keys, values and log-probabilities.
        sentences, dimension, shard_sentences: sizes.
        skip: sentences the model cannot take.
    """

    def __init__(
        self,
        seed: int = 0,
        sentences: int = 11,
        dimension: int = 5,
        shard_sentences: int = 3,
        skip: frozenset[int] = frozenset({4}),
    ) -> None:
        self.skip = skip
        self.lengths = np.random.default_rng(99).integers(1, 9, sentences)
        rng = np.random.default_rng(seed)
        self.keys = [rng.normal(size=(n, dimension)).astype(np.float16) for n in self.lengths]
        self.values = [rng.integers(0, 1000, n) for n in self.lengths]
        self.log_probs = [-rng.exponential(size=n).astype(np.float32) for n in self.lengths]
        self.documents = [np.full(n, number // 4) for number, n in enumerate(self.lengths)]
        self.plan = Plan(
            model="a" * 64,
            model_name="TestModel",
            vocabulary="b" * 64,
            vocabulary_size=1000,
            key="decoder_output",
            split="train",
            data="c" * 64,
            sentences=sentences,
            shard_sentences=shard_sentences,
        )

    @property
    def stored(self) -> list[int]:
        """Sentences that are not skipped."""
        return [s for s in range(self.plan.sentences) if s not in self.skip]

    def batches(self, shard: int, order: int) -> Iterator[list[int]]:
        """Sentences of a shard in batches of two, shuffled by the seed *order*."""
        first, last = self.plan.sentence_range(shard)
        sentences = [s for s in range(first, last) if s not in self.skip]
        np.random.default_rng(order).shuffle(sentences)
        for start in range(0, len(sentences), 2):
            yield sentences[start : start + 2]

    def write_shard(self, writer: DatastoreWriter, shard: int, order: int = 0) -> None:
        """Write and commit one shard."""
        part = writer.open_shard(shard)
        for batch in self.batches(shard, order):
            part.add(
                batch,
                [int(self.lengths[s]) for s in batch],
                np.concatenate([self.keys[s] for s in batch]),
                np.concatenate([self.values[s] for s in batch]),
                np.concatenate([self.log_probs[s] for s in batch]),
                np.concatenate([self.documents[s] for s in batch]),
            )
        part.commit()

    def build(
        self,
        root: Path,
        *,
        order: int = 0,
        rank: int = 0,
        world: int = 1,
        overwrite: bool = False,
        **plan: Any,
    ) -> None:
        """Write all pending shards of one rank and finish.

        Args:
            root: directory of the datastore.
            order: seed of the order of the sentences within each shard.
            rank, world, overwrite: of the writer.
            plan: fields of the plan that are to differ.
        """
        writer = DatastoreWriter(root, replace(self.plan, **plan), rank=rank, world=world, overwrite=overwrite)
        for shard in writer.pending():
            self.write_shard(writer, shard, order)
        writer.finish()


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory, hidden files included: content of files, ``None`` for directories."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def empty(root: Path) -> Path:
    """Make *root* an absent directory."""
    shutil.rmtree(root, ignore_errors=True)
    return root
