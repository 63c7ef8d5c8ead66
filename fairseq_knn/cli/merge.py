"""``fairseq-knn merge``."""

import argparse
from pathlib import Path

NAME = "merge"
HELP = "finish a datastore that several ranks (or array tasks) have built"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Checks that every shard of the datastore is there, names the missing ones, and writes the manifest that "
        "makes it whole. The result is byte for byte what a build by a single process gives."
    )
    parser.add_argument("datastore", type=Path, metavar="DIR", help="directory the ranks wrote to")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.datastore import merge

    manifest = merge(args.datastore)
    print(
        f"{args.datastore}: {manifest.entries:,} entries of dimension {manifest.dimension} in {len(manifest.shards)} "
        "shards"
    )
    return 0
