"""``fairseq-knn st-data extract``."""

import argparse
from pathlib import Path

from fairseq_knn.cli.st_data import common

NAME = "extract"
HELP = "texts of a manifest as plain files, a line for every row"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes PREFIX.src_text and PREFIX.tgt_text for any other program, and PREFIX.ids, by which `insert` puts back "
        "what it made of them. Such a program may change lines, but neither drop, split nor join them."
    )
    common.add_manifest(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="PREFIX", help="of the files to write")
    common.add_columns(parser)


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.speech_data.texts import extract

    extracted = extract(args.manifest, args.output, args.columns)
    print(f"read: {extracted.rows:,} rows of {args.manifest}")
    common.say_blank({str(path): blank for path, blank in extracted.blank.items()})
    print(f"written: {extracted.rows:,} lines to each of {', '.join(map(str, extracted.blank))}")
    return 0
