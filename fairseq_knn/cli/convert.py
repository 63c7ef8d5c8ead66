"""``fairseq-knn convert``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_knn.cli.conversions.prepared import Prepared
    from fairseq_knn.datastore import BareDatastore

NAME = "convert"
HELP = "make a datastore of knn-box, adaptive-knn-mt, kNN-LM, RetoMaton or knn-transformers one of this package"
PASSES_ON = "fairseq-generate"  # arguments it does not know are fairseq's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "fairseq-knn convert OLD NEW DATA --path BASE.pt [options]\n"
        "       fairseq-knn convert OLD NEW DATA --path LM.pt --task language_modeling_knn [options]\n"
        "       fairseq-knn convert OLD NEW --transformers MODEL [options]"
    )
    parser.description = (
        "Copies keys and values of OLD into NEW, in shards with checksums, and binds them to the model and the "
        "vocabulary they were built with, which the old formats do not record. Whether they were is checked: some keys "
        "are computed again and compared with those of OLD. Entries keep their numbers, so clusters of them stay "
        "right. Build the index afterwards (fairseq-knn build-index NEW). An interrupted conversion goes on when the "
        "same command is run again. A datastore of knn-box can also be used as it is, unchecked and with its own "
        "index. DATA, --path and other arguments are those of fairseq-generate or, of a language model, "
        "fairseq-eval-lm, with --sample-break-mode, --tokens-per-sample and --context-window as they were when OLD was "
        "built; --gen-subset is train unless it is given, --knn-key tells what the keys are if not what the other "
        "toolkit's default is, --knn-overwrite replaces NEW, --knn-allow-mismatch insists although the keys differ."
    )
    parser.add_argument(
        "old",
        type=Path,
        metavar="OLD",
        help="directory with keys.npy and vals.npy, or what comes before _keys.npy and _vals.npy",
    )
    parser.add_argument("new", type=Path, metavar="NEW", help="directory of the datastore to write")
    parser.add_argument(
        "--dimension", type=int, metavar="D", help="of the keys, where neither config.json nor the name of OLD tells it"
    )
    parser.add_argument(
        "--entries", type=int, metavar="N", help="number of entries, where neither the name nor the files tell it"
    )
    parser.add_argument(
        "--key-dtype",
        choices=("float16", "float32"),
        help="of the keys, where the files leave it open: float16 if they were written with --dstore-fp16",
    )
    parser.add_argument(
        "--transformers",
        metavar="MODEL",
        help="OLD was built by knn-transformers with this model: a directory, or a name of Hugging Face's hub",
    )
    parser.add_argument(
        "--block-size",
        type=int,
        metavar="L",
        help="with --transformers: as it was when OLD was built (default: as many tokens as the model takes, at most "
        "1024)",
    )
    parser.add_argument(
        "--stride", type=int, default=512, metavar="S", help="with --transformers: the same (default: 512)"
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fairseq_knn.datastore.conversion import convert

    source = _open(args)
    _check_target(args)
    prepared = _prepare(source, args)
    entries = int(prepared.lengths.sum())
    if entries < source.entries:
        print(f"{source.entries - entries:,} empty entries at the end of {source.path} are left out")
    with tqdm(total=entries, desc="entries", unit="", unit_scale=True) as bar:
        manifest = convert(
            source,
            args.new,
            prepared.plan,
            prepared.lengths,
            documents=prepared.documents,
            overwrite=prepared.overwrite,
            advance=bar.update,
        )
    print(
        f"{args.new}: {manifest.entries:,} entries of dimension {manifest.dimension} in {len(prepared.lengths):,} "
        f"{prepared.units}; next: fairseq-knn build-index {args.new}"
    )
    return 0


def _open(args: argparse.Namespace) -> "BareDatastore":
    from fairseq_knn.datastore import KnnboxDatastore, KnnlmDatastore
    from fairseq_knn.errors import ConfigurationError

    for name in ("dimension", "entries", "block_size", "stride"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigurationError(f"--{name.replace('_', '-')} is {value}, but must be at least 1")
    sizes = {"entries": args.entries, "key_dtype": args.key_dtype}
    if not KnnboxDatastore.recognises(args.old):
        return KnnlmDatastore.open(args.old, dimension=args.dimension, **sizes)
    if args.dimension is not None:
        return KnnboxDatastore.undescribed(args.old, dimension=args.dimension, **sizes)
    if any(sizes.values()):
        raise ConfigurationError(
            "--entries and --key-dtype go with --dimension: knn-box's datastores say all three themselves"
        )
    return KnnboxDatastore.open(args.old)


def _check_target(args: argparse.Namespace) -> None:
    """Before the model is loaded and the keys are compared: whether NEW can be written.

    Raises:
        ConfigurationError: it is OLD.
        DatastoreError: it holds a datastore already.
    """
    from fairseq_knn.datastore import KnnboxDatastore
    from fairseq_knn.datastore.layout import manifest_path
    from fairseq_knn.errors import ConfigurationError, DatastoreError

    if args.new.resolve() == args.old.resolve():
        raise ConfigurationError(
            f"OLD and NEW are both {args.old}, but OLD stays as it is: name another directory as NEW"
        )
    replaced = "--knn-overwrite" in args.passed_on
    if KnnboxDatastore.recognises(args.new) or (manifest_path(args.new).exists() and not replaced):
        raise DatastoreError(f"{args.new} holds a datastore already: name another directory as NEW")


def _prepare(source: "BareDatastore", args: argparse.Namespace) -> "Prepared":
    from fairseq_knn.datastore import KnnlmDatastore
    from fairseq_knn.errors import ConfigurationError

    if args.transformers is not None:
        from fairseq_knn.cli.conversions import huggingface

        return huggingface.prepare(source, args.transformers, args.block_size, args.stride, args.passed_on)
    from fairseq_knn.cli.stock import scores_text

    if scores_text(args.passed_on):
        from fairseq_knn.cli.conversions import language_model

        return language_model.prepare(source, str(args.new), args.passed_on)
    if isinstance(source, KnnlmDatastore):
        raise ConfigurationError(
            f"{source.path} is a language model's datastore: pass --task language_modeling_knn with the DATA and "
            "--path of fairseq, or --transformers MODEL"
        )
    from fairseq_knn.cli.conversions import translation

    return translation.prepare(source, str(args.new), args.passed_on)
