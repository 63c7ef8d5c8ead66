"""Helpers shared by the tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore, DatastoreWriter, Plan


def write_datastore(
    path: Path | str,
    keys: np.ndarray,
    values: np.ndarray,
    lengths: Sequence[int] | None = None,
    shard_sentences: int | None = None,
    *,
    vocabulary_size: int = 1000,
    model: str = "0" * 64,
    key: str = "decoder_output",
    log_probs: np.ndarray | None = None,
    documents: np.ndarray | None = None,
    kind: str | None = None,
) -> Datastore:
    """Write a finished datastore and open it.

    Args:
        path: its directory.
        keys: (n, d), stored as float16.
        values: target token ids (n,).
        lengths: tokens of each sentence, summing to n; default: one sentence per entry up to 7 entries
            each, so that sentences and positions differ.
        shard_sentences: sentences per shard; default: all in one shard.
        vocabulary_size, model, key: fields of the plan.
        log_probs: of the values in their places (n,), if they are to be stored.
        documents: numbers of the entries' documents (n,), if they are to be stored.
        kind: of the plan; default: a language model's if there are documents.
    """
    keys, values = np.asarray(keys, np.float16), np.asarray(values)
    if lengths is None:
        lengths = [min(7, len(keys) - start) for start in range(0, len(keys), 7)]
    plan = Plan(
        model=model,
        model_name="TestModel",
        vocabulary="1" * 64,
        vocabulary_size=vocabulary_size,
        key=key,
        split="train",
        data="2" * 64,
        sentences=len(lengths),
        shard_sentences=shard_sentences or len(lengths),
        kind=kind or (TRANSLATION if documents is None else LANGUAGE_MODEL),
    )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    writer = DatastoreWriter(path, plan)
    for shard in writer.pending():
        first, last = plan.sentence_range(shard)
        entries = slice(starts[first], starts[last])
        part = writer.open_shard(shard)
        optional = {"log_probs": log_probs, "documents": documents}
        known = {name: None if array is None else np.asarray(array)[entries] for name, array in optional.items()}
        part.add(range(first, last), lengths[first:last], keys[entries], values[entries], **known)
        part.commit()
    writer.finish()
    return Datastore.load(path)
