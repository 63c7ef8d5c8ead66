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
        "--on-disk",
        action="store_true",
        help="for an index larger than memory: its lists stay on disk, in DIR/index.ivfdata, and what is found by "
        "their codes is ranked again by the keys of the datastore",
    )
    parser.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="build the index in N parts, of which memory holds one at a time: all of them, one after the other, or "
        "with --shard-id one of them (default: one, with --on-disk as many as are needed for 4 GiB each)",
    )
    parser.add_argument(
        "--shard-id",
        type=int,
        metavar="I",
        help="only make part I, from 0, after --train-only: for the tasks of an array. When all are done, the command "
        "without this and --num-shards merges them",
    )
    parser.add_argument("--train-only", action="store_true", help="only train the index, for the tasks of an array")
    parser.add_argument(
        "--drop-keys",
        action="store_true",
        help="delete the keys when the index is whole: with a re-ranking index this halves the disk space, with a "
        "quantising one a tenth is left; exact search and another index are then impossible",
    )


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.datastore import Datastore
    from fairseq_knn.index.array_tasks import build_part, train_index
    from fairseq_knn.index.build import build_index
    from fairseq_knn.index.dropping import drop_keys, droppable

    _check(args)
    datastore = Datastore.load(args.datastore)
    if args.drop_keys:
        droppable(datastore)
    settings = {
        "device": args.knn_device,
        "train_size": args.train_size,
        "seed": args.seed,
        "on_disk": args.on_disk,
        "report": print,
    }
    if args.train_only:
        train_index(datastore, args.knn_index, **settings)
        return 0
    if args.shard_id is not None:
        build_part(datastore, args.knn_index, num_shards=args.num_shards, shard_id=args.shard_id, **settings)
        return 0
    build_index(
        datastore,
        args.knn_index,
        nprobe=args.knn_nprobe,
        k=args.knn_k,
        min_recall=args.min_recall,
        num_shards=args.num_shards,
        **settings,
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
        ("--num-shards", args.num_shards, 1),
        ("--shard-id", args.shard_id, 0),
    ):
        if value is not None and value < least:
            raise ConfigurationError(f"{flag} is {value}, but must be at least {least}")
    if not 0 <= args.min_recall <= 1:
        raise ConfigurationError(f"--min-recall is {args.min_recall:g}, but must be between 0 and 1")
    if args.shard_id is not None:
        if args.num_shards is None:
            raise ConfigurationError("--shard-id is the number of one part of several: say how many with --num-shards")
        if args.shard_id >= args.num_shards:
            raise ConfigurationError(
                f"--shard-id is {args.shard_id}, but of --num-shards {args.num_shards} the last is "
                f"{args.num_shards - 1}"
            )
    one_step = "--train-only" if args.train_only else "--shard-id" if args.shard_id is not None else ""
    if args.train_only and (args.num_shards is not None or args.shard_id is not None):
        raise ConfigurationError("--train-only trains the index of all parts: leave out --num-shards and --shard-id")
    if args.drop_keys and (one_step or args.on_disk):
        why = "with --on-disk the search needs the keys" if args.on_disk else f"after {one_step} they are still needed"
        raise ConfigurationError(f"--drop-keys deletes the keys, but {why}: leave out one of them")
