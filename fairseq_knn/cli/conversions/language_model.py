"""Converting a datastore of a fairseq language model: its tokens are found in their text, some keys computed again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fairseq_knn.cli.conversions.prepared import Prepared, check_dimension, check_values, judge, per_shard
from fairseq_knn.cli.stock import load_stock_run
from fairseq_knn.datastore import LANGUAGE_MODEL, BareDatastore, Plan
from fairseq_knn.datastore.conversion import filled_entries
from fairseq_knn.datastore.text_order import Text, TextOrder, locate
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.storage.digest import vocabulary_digest
from fairseq_knn.tasks.knn.context_window import ContextWindow
from fairseq_knn.tasks.knn.documents import documents_of_lines

_BLOCKS = 64  # computed again, at most
_TOKENS = 16_384  # the same, with their context, unless that is less than two blocks
_AS_THEY_WERE = "--sample-break-mode, --tokens-per-sample and --context-window as they were when it was built"


def prepare(source: BareDatastore, target: str, arguments: list[str]) -> Prepared:
    """
    Args:
        source: what is converted.
        target: directory of the new datastore.
        arguments: those of fairseq-eval-lm.

    Raises:
        UserError: model, text and datastore do not belong together.
    """
    stock = load_stock_run(
        ["--knn-key", source.key, *arguments],
        {"gen_subset": "train"},
        {"knn_mode": "build_datastore", "knn_datastore_path": target, "cpu": True},
    )
    dictionary, config = stock.task.target_dictionary, stock.task.knn.config
    values = source.values[: filled_entries(source)]
    check_values(values, len(dictionary), source.path, "dictionary of the data")
    text = _text(stock)
    order = locate(values, text)
    _tell(order, text)
    _check_keys(source, order, text, stock)
    plan = Plan(
        model=str(knn_decoder(stock.model).knn_fingerprint),
        model_name=type(stock.model).__name__,
        vocabulary=vocabulary_digest(dictionary.symbols),
        vocabulary_size=len(dictionary),
        key=stock.task.knn.key,
        split=text.name,
        # The blocks are those that are stored, which may be in another order than the split's.
        data=source.digest,
        sentences=len(order.lengths),
        shard_sentences=per_shard(order.lengths, config.knn_shard_sentences),
        kind=LANGUAGE_MODEL,
    )
    return Prepared(plan, order.lengths, order.documents(text), config.knn_overwrite)


def _text(stock: Any) -> Text:
    split = stock.cfg.dataset.gen_subset
    blocks = stock.task.dataset(split).dataset
    lines = blocks.dataset
    documents = documents_of_lines(lines, lines.sizes, stock.task.source_dictionary)
    return Text(
        split,
        torch.cat([lines[number].int() for number in range(len(lines))]).numpy(),
        np.asarray(blocks.slice_indices),
        np.repeat(documents, lines.sizes),
    )


def _tell(order: TextOrder, text: Text) -> None:
    entries, tokens = len(order.places), len(text.tokens)
    if order.sorted_by_length:
        print(
            f"the {entries:,} entries are {len(order.blocks):,} blocks of {text.name!r} (of {tokens:,} tokens) in the "
            "order of their length: pointers go on where the text does"
        )
    else:
        print(
            f"the {entries:,} entries are the tokens {int(order.places[0]):,} to {int(order.places[-1]):,} of "
            f"{text.name!r}, which has {tokens:,}, numbered from 0"
        )


def _check_keys(source: BareDatastore, order: TextOrder, text: Text, stock: Any) -> None:
    """Whether the model at hand computes the keys that are stored.

    Raises:
        DatastoreError: it does not.
    """
    context = stock.cfg.eval_lm.context_window
    size = context + int(order.lengths.mean())
    count = min(_BLOCKS, max(2, _TOKENS // size))
    chosen = np.unique(np.linspace(0, len(order.blocks) - 1, count).astype(np.int64))
    dataset = stock.task.dataset(text.name)
    if context:
        dataset = ContextWindow(dataset, stock.cfg.task.tokens_per_sample, context)
    errors = []
    for number in chosen.tolist():
        block, start, length = (int(array[number]) for array in (order.blocks, order.starts, order.lengths))
        states = _states(stock, dataset[block])
        check_dimension(source.dimension, states.shape[1], source.path)
        # Of the first and the last block only a part may be stored.
        first = int(order.places[start]) - int(text.blocks[block, 0])
        computed = states[first : first + length]
        stored = source.keys(start, start + length).astype(np.float32)
        errors.append(np.linalg.norm(stored - computed) / np.linalg.norm(computed))
    judge(
        np.array(errors),
        f"{len(errors)} of the blocks were computed again",
        f"the model (--path) it was built with, and {_AS_THEY_WERE}",
        insists=stock.task.knn.config.knn_allow_mismatch,
    )


def _states(stock: Any, item: Mapping[str, Any]) -> np.ndarray:
    """Hidden states of the tokens of a block, without those before it, float32 (T, d).

    Raises:
        ConfigurationError: they are more than the model takes.
    """
    tokens = item["source"]
    if stock.max_positions is not None and len(tokens) > stock.max_positions:
        raise ConfigurationError(
            f"a block has {len(tokens):,} tokens with its context, but the model takes {stock.max_positions:,}: pass "
            f"{_AS_THEY_WERE}"
        )
    with torch.no_grad(), knn_decoder(stock.model).knn_record() as recording:
        stock.model(src_tokens=tokens.unsqueeze(0), src_lengths=torch.tensor([len(tokens)]))
    states: np.ndarray = recording.states[-1][0, item.get("start", 0) :].float().numpy()
    return states
