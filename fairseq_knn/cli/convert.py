"""``fairseq-knn convert``."""

import argparse
from pathlib import Path
from typing import Any

NAME = "convert"
HELP = "make a datastore of knn-box or adaptive-knn-mt one of this package"
PASSES_ON = "fairseq-generate"  # arguments it does not know are fairseq's

_SENTENCES = 64  # recomputed
_TOLERANCE = 0.05  # of their length: float16, and another machine's arithmetic
_SHARE = 0.9  # of the sentences that have to agree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fairseq-knn convert OLD NEW DATA --path BASE.pt [options]"
    parser.description = (
        "Copies keys and values of OLD into NEW, in shards with checksums, and binds them to the base model and the "
        "dictionary they were built with, which the old formats do not record. Whether they were is checked: the keys "
        f"of {_SENTENCES} sentences of --gen-subset (default: train) are computed again and looked for in OLD. Build "
        "the index afterwards (fairseq-knn build-index NEW). An interrupted conversion goes on when the same command "
        "is run again. A datastore of knn-box can also be used as it is, unchecked and with its own index. DATA, "
        "--path and other arguments are those of fairseq-generate; --knn-overwrite replaces NEW, --knn-allow-mismatch "
        "insists although the keys differ."
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="directory with keys.npy and vals.npy")
    parser.add_argument("new", type=Path, metavar="NEW", help="directory of the datastore to write")
    parser.add_argument(
        "--dimension",
        type=int,
        metavar="D",
        help="of the keys; needed for adaptive-knn-mt's, which have no config.json",
    )
    parser.add_argument(
        "--key-dtype",
        choices=("float16", "float32"),
        help="of adaptive-knn-mt's keys: float16 if they were written with --dstore-fp16 (default: float16)",
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fairseq_knn.cli.stock import load_stock_run
    from fairseq_knn.datastore import Plan
    from fairseq_knn.datastore.conversion import convert, sentence_lengths
    from fairseq_knn.models.knn_decoder import knn_decoder
    from fairseq_knn.storage.digest import vocabulary_digest

    source = _open(args)
    _check_target(args)
    stock = load_stock_run(
        args.passed_on,
        {"gen_subset": "train"},
        {"knn_mode": "build_datastore", "knn_datastore_path": str(args.new), "cpu": True},
    )
    dictionary, config = stock.task.target_dictionary, stock.task.knn.config
    _check_values(source, dictionary)
    lengths = sentence_lengths(source.values, dictionary.eos())
    entries = int(lengths.sum())
    if entries < source.entries:
        print(f"{source.entries - entries:,} empty entries at the end of {source.path} are left out")
    _check_keys(source, lengths, stock)
    plan = Plan(
        model=str(knn_decoder(stock.model).knn_fingerprint),
        model_name=type(stock.model).__name__,
        vocabulary=vocabulary_digest(dictionary.symbols),
        vocabulary_size=len(dictionary),
        key=source.key,
        split=stock.cfg.dataset.gen_subset,
        # The sentences are in the order they were batched, which is no split's.
        data=source.digest,
        sentences=len(lengths),
        shard_sentences=config.knn_shard_sentences,
    )
    with tqdm(total=entries, desc="entries", unit="", unit_scale=True) as bar:
        manifest = convert(source, args.new, plan, lengths, overwrite=config.knn_overwrite, advance=bar.update)
    print(
        f"{args.new}: {manifest.entries:,} entries of dimension {manifest.dimension} in {len(lengths):,} sentences; "
        f"next: fairseq-knn build-index {args.new}"
    )
    return 0


def _open(args: argparse.Namespace) -> Any:
    from fairseq_knn.datastore import KnnboxDatastore
    from fairseq_knn.errors import ConfigurationError, DatastoreError

    if args.dimension is None and args.key_dtype is not None:
        raise ConfigurationError("--key-dtype goes with --dimension: knn-box's datastores say both themselves")
    if args.dimension is not None:
        if args.dimension < 1:
            raise ConfigurationError(f"--dimension is {args.dimension}, but must be at least 1")
        return KnnboxDatastore.undescribed(args.old, args.dimension, args.key_dtype or "float16")
    if not KnnboxDatastore.recognises(args.old):
        raise DatastoreError(
            f"{args.old} is no datastore of knn-box or adaptive-knn-mt (those have keys.npy, vals.npy and, from "
            "knn-box, config.json): name such a directory"
        )
    return KnnboxDatastore.open(args.old)


def _check_target(args: argparse.Namespace) -> None:
    """Before the model is loaded and the keys are compared: whether NEW can be written.

    Raises:
        DatastoreError: it holds a datastore already.
    """
    from fairseq_knn.datastore import KnnboxDatastore
    from fairseq_knn.datastore.layout import manifest_path
    from fairseq_knn.errors import DatastoreError

    replaced = "--knn-overwrite" in args.passed_on
    if KnnboxDatastore.recognises(args.new) or (manifest_path(args.new).exists() and not replaced):
        raise DatastoreError(f"{args.new} holds a datastore already: name another directory as NEW")


def _check_values(source: Any, dictionary: Any) -> None:
    from fairseq_knn.errors import DatastoreError

    largest = int(source.values.max())
    if largest >= len(dictionary):
        raise DatastoreError(
            f"{source.path} holds token {largest}, but the target dictionary of the data has {len(dictionary):,} "
            "symbols: name the data directory it was built from"
        )


def _check_keys(source: Any, lengths: Any, stock: Any) -> None:
    """Whether the model at hand computes the keys that are stored.

    Raises:
        DatastoreError: it does not.
    """
    import numpy as np

    from fairseq_knn.datastore.conversion import key_errors
    from fairseq_knn.errors import DatastoreError

    sentences = _recompute(stock)
    dimension = sentences[0][1].shape[1]
    if dimension != source.dimension:
        raise DatastoreError(
            f"the keys of {source.path} have dimension {source.dimension}, the hidden states of the model dimension "
            f"{dimension}: name with --path the model that built it"
        )
    errors = key_errors(source, lengths, sentences)
    stored, agreeing = int(np.isfinite(errors).sum()), int((errors <= _TOLERANCE).sum())
    told = (
        f"of {len(sentences)} sentences of {stock.cfg.dataset.gen_subset!r} computed again, {stored} are stored in "
        f"{source.path}, and the keys of {agreeing} agree"
    )
    if agreeing >= _SHARE * len(sentences) or stock.task.knn.config.knn_allow_mismatch:
        print(told)
        return
    raise DatastoreError(
        f"{told}: name the model (--path), data and --gen-subset it was built from, or insist with --knn-allow-mismatch"
    )


def _recompute(stock: Any) -> list[tuple[Any, Any]]:
    """Target tokens and hidden states of a few sentences, spread over the split."""
    import numpy as np
    import torch

    from fairseq_knn.models.knn_decoder import knn_decoder

    dataset = stock.task.dataset(stock.cfg.dataset.gen_subset)
    fitting, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), stock.max_positions)
    result = []
    for number in fitting[np.unique(np.linspace(0, len(fitting) - 1, _SENTENCES).astype(int))].tolist():
        sample = dataset.collater([dataset[number]])
        with torch.no_grad(), knn_decoder(stock.model).knn_record() as recording:
            stock.model(**sample["net_input"])
        result.append((sample["target"][0].numpy(), recording.states[-1][0].numpy()))
    return result
