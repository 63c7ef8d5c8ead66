"""Asking an expert about every reference of a split, once."""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from fairseq import utils
from fairseq.data import FairseqDataset
from tqdm import tqdm

from fairseq_knn.criterions.expert_beliefs import ExpertBeliefs
from fairseq_knn.imitation.beliefs import SparseBelief
from fairseq_knn.imitation.contexts import counted
from fairseq_knn.imitation.expert_cache import MANIFEST, ExpertCache
from fairseq_knn.imitation.expert_cache_writer import ExpertCacheWriter
from fairseq_knn.tasks.processes import place_and_number, wait_for

logger = logging.getLogger("fairseq_knn")

_SECONDS_BETWEEN_FLUSHES = 60.0


class Part(Protocol):
    """A data set whose batches have ``sentence`` and what the expert reads.

    Attributes:
        first: number of its first sentence in the whole split.
    """

    first: int

    def asked(self, numbers: Sequence[int]) -> dict[str, Any]:
        """A batch of some sentences, in which what the student reads or hears may be missing."""
        ...

    def positions(self) -> Sequence[int]:
        """How many positions each reference has, its end counted."""
        ...

    def digest(self) -> str:
        """Of all that the expert's beliefs depend on."""
        ...


def filled_cache(
    directory: Path,
    beliefs: ExpertBeliefs,
    parts: Sequence[Any],
    *,
    pad: int,
    device: torch.device,
    limits: Any,
    max_tokens: int | None,
    max_sentences: int | None,
) -> ExpertCache:
    """The cache of a split; what is missing of it is computed first, by one process, for which the others wait.

    Args:
        directory: of the cache.
        beliefs: asks the expert.
        parts: data sets of the split, each a :class:`Part` and a FairseqDataset.
        pad: symbol of padding.
        device: where the expert is asked.
        limits: the greatest lengths of sentences that are trained on.
        max_tokens, max_sentences: of a batch.

    Raises:
        UserError: the directory holds something else, or cannot be written.
    """
    kept = [part.filter_indices_by_size(np.arange(len(part)), limits)[0] for part in parts]
    description = {
        "expert": beliefs.fingerprint,
        "data": [part.digest() for part in parts],
        "limits": str(limits),
        "k": beliefs.kept,
    }
    if not (directory / MANIFEST).exists():
        if place_and_number()[0] == 0:
            _fill(directory, description, beliefs, parts, kept, pad, device, max_tokens, max_sentences)
        else:
            wait_for(directory / MANIFEST, f"the cache {directory}")
    return ExpertCache.open(directory, description)


def _fill(
    directory: Path,
    description: dict[str, Any],
    beliefs: ExpertBeliefs,
    parts: Sequence[Any],
    kept: Sequence[np.ndarray],
    pad: int,
    device: torch.device,
    max_tokens: int | None,
    max_sentences: int | None,
) -> None:
    positions = np.zeros(sum(map(len, parts)), np.int64)
    for part, chosen in zip(parts, kept, strict=True):
        positions[part.first + np.asarray(chosen)] = np.asarray(part.positions())[chosen]
    with closing(ExpertCacheWriter(directory, description, positions.tolist(), beliefs.kept)) as writer:
        missing = np.array(writer.missing, np.int64)
        logger.info(f"asking the expert about {len(missing):,} references, for {directory}")
        flushed = time.monotonic()
        with tqdm(total=len(missing), desc="expert", unit=" sentences", disable=None) as bar:
            for part in parts:
                own = missing[(missing >= part.first) & (missing < part.first + len(part))] - part.first
                for batch in _batches(part, own, max_tokens, max_sentences):
                    sample = part.asked([int(number) for number in batch])
                    _write(writer, beliefs, sample, pad, device)
                    bar.update(len(batch))
                    if time.monotonic() - flushed > _SECONDS_BETWEEN_FLUSHES:
                        writer.flush()
                        flushed = time.monotonic()
        writer.finish()


def _batches(part: FairseqDataset, numbers: np.ndarray, max_tokens: int | None, max_sentences: int | None) -> Any:
    if not len(numbers):
        return []
    by_length = numbers[np.argsort(-np.asarray(part.sizes).reshape(len(part), -1)[numbers, 0], kind="stable")]
    return part.batch_by_size(by_length, max_tokens=max_tokens, max_sentences=max_sentences)


def _write(
    writer: ExpertCacheWriter, beliefs: ExpertBeliefs, sample: dict[str, Any], pad: int, device: torch.device
) -> None:
    if device.type == "cuda":
        sample = utils.move_to_cuda(sample, device)
    prefix = sample["net_input"]["prev_output_tokens"]
    real = counted(prefix, pad)
    said = beliefs.of(sample, prefix)(real.flatten().nonzero().squeeze(1))
    assert isinstance(said, SparseBelief)
    lengths = real.sum(dim=1).tolist()
    for sentence, tokens, probabilities in zip(
        sample["sentence"].tolist(),
        torch.split(said.tokens, lengths),
        torch.split(said.probabilities, lengths),
        strict=True,
    ):
        writer.put(sentence, tokens, probabilities)
