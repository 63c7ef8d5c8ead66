"""Converting a datastore of a translation model: the keys of some sentences are computed again and looked for."""

from typing import Any

import numpy as np
import torch

from fairseq_knn.cli.conversions.prepared import Prepared, check_dimension, check_values, judge, per_shard
from fairseq_knn.cli.stock import load_stock_run
from fairseq_knn.datastore import BareDatastore, Plan
from fairseq_knn.datastore.conversion import key_errors, sentence_lengths
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.storage.digest import vocabulary_digest

SENTENCES = 64  # computed again


def prepare(source: BareDatastore, target: str, arguments: list[str]) -> Prepared:
    """
    Args:
        source: what is converted.
        target: directory of the new datastore.
        arguments: those of fairseq-generate.

    Raises:
        UserError: model, data and datastore do not belong together.
    """
    stock = load_stock_run(
        ["--knn-key", source.key, *arguments],
        {"gen_subset": "train"},
        {"knn_mode": "build_datastore", "knn_datastore_path": target, "cpu": True},
    )
    dictionary, config = stock.task.target_dictionary, stock.task.knn.config
    check_values(source.values, len(dictionary), source.path, "target dictionary of the data")
    lengths = sentence_lengths(source.values, dictionary.eos())
    _check_keys(source, lengths, stock)
    plan = Plan(
        model=str(knn_decoder(stock.model).knn_fingerprint),
        model_name=type(stock.model).__name__,
        vocabulary=vocabulary_digest(dictionary.symbols),
        vocabulary_size=len(dictionary),
        key=stock.task.knn.key,
        split=stock.cfg.dataset.gen_subset,
        # The sentences are in the order they were batched, which is no split's.
        data=source.digest,
        sentences=len(lengths),
        shard_sentences=per_shard(lengths, config.knn_shard_sentences),
    )
    return Prepared(plan, lengths, None, config.knn_overwrite)


def _check_keys(source: BareDatastore, lengths: np.ndarray, stock: Any) -> None:
    """Whether the model at hand computes the keys that are stored.

    Raises:
        DatastoreError: it does not.
    """
    sentences = _recompute(stock)
    check_dimension(source.dimension, sentences[0][1].shape[1], source.path)
    errors = key_errors(source, lengths, sentences)
    judge(
        errors,
        f"of {len(sentences)} sentences of {stock.cfg.dataset.gen_subset!r} computed again, "
        f"{int(np.isfinite(errors).sum())} are stored in {source.path}",
        "the model (--path), data and --gen-subset it was built from",
        insists=stock.task.knn.config.knn_allow_mismatch,
    )


def _recompute(stock: Any) -> list[tuple[Any, Any]]:
    """Target tokens and hidden states of a few sentences, spread over the split."""
    dataset = stock.task.dataset(stock.cfg.dataset.gen_subset)
    fitting, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), stock.max_positions)
    result = []
    for number in fitting[np.unique(np.linspace(0, len(fitting) - 1, SENTENCES).astype(int))].tolist():
        sample = dataset.collater([dataset[number]])
        with torch.no_grad(), knn_decoder(stock.model).knn_record() as recording:
            stock.model(**sample["net_input"])
        result.append((sample["target"][0].numpy(), recording.states[-1][0].numpy()))
    return result
