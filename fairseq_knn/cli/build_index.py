"""``fairseq-knn build-index``."""

import argparse
from pathlib import Path

NAME = "build-index"
HELP = "build the search index of a datastore and measure what it finds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Builds DIR/index.faiss, compares it with exact search on a sample of the stored keys and prints its recall, "
        "size and search time. An interrupted build goes on when the same command is run again; a finished index "
        "with the same settings is left alone. A datastore that fits into the memory of the GPU that translates, or "
        "of a few thousand entries, needs no index: --knn-backend auto searches it exactly."
    )
    parser.add_argument("datastore", type=Path, metavar="DIR", help="a finished datastore")
    parser.add_argument(
        "--knn-index",
        default="auto",
        metavar="KIND",
        help="auto: chosen from the number of entries, their dimension and the device; flat: exact; or a faiss factory "
        "string such as IVF1024,PQ128x4fsr,Refine(SQfp16) (default: auto)",
    )
    parser.add_argument(
        "--min-recall",
        type=float,
        default=0.95,
        metavar="R",
        help="fail if the index finds a smaller share of the true k nearest keys (default: 0.95)",
    )
    parser.add_argument(
        "--knn-nprobe",
        type=int,
        metavar="N",
        help="lists of an inverted index that are searched when recall is measured, and when translating (default: on "
        "a CPU the least of 4, 8, 16 and 32 that finds 98 %%, or what finds most; on a GPU 32)",
    )
    parser.add_argument(
        "--knn-k", type=int, default=8, metavar="K", help="neighbours asked for when recall is measured (default: 8)"
    )
    parser.add_argument(
        "--knn-device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the index will be searched; auto: the GPU if there is one (default: auto)",
    )
    parser.add_argument(
        "--train-size",
        type=int,
        metavar="N",
        help="keys to train the index with (default: 64 per list, at least 65,536, as far as there are so many)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the training sample (default: 1)")
    parser.add_argument(
        "--drop-keys",
        action="store_true",
        help="delete the keys when the index is whole: with a re-ranking index this halves the disk space, with a "
        "quantising one a tenth is left; exact search and another index are then impossible",
    )


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.datastore import Datastore
    from fairseq_knn.index.build import build_index
    from fairseq_knn.index.dropping import drop_keys, droppable

    _check(args)
    datastore = Datastore.load(args.datastore)
    if args.drop_keys:
        droppable(datastore)
    build_index(
        datastore,
        args.knn_index,
        device=args.knn_device,
        nprobe=args.knn_nprobe,
        k=args.knn_k,
        min_recall=args.min_recall,
        train_size=args.train_size,
        seed=args.seed,
        report=print,
    )
    if args.drop_keys:
        freed = drop_keys(datastore)
        print(f"the keys of {datastore.path} are dropped ({freed / 1e6:,.1f} MB); only its index can be searched")
    return 0


def _check(args: argparse.Namespace) -> None:
    from fairseq_knn.errors import ConfigurationError

    for flag, value, least in (
        ("--knn-nprobe", args.knn_nprobe, 1),
        ("--knn-k", args.knn_k, 1),
        ("--train-size", args.train_size, 1),
        ("--seed", args.seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigurationError(f"{flag} is {value}, but must be at least {least}")
    if not 0 <= args.min_recall <= 1:
        raise ConfigurationError(f"--min-recall is {args.min_recall:g}, but must be between 0 and 1")
