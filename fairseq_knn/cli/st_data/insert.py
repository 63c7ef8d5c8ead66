"""``fairseq-knn st-data insert``."""

import argparse
from pathlib import Path

from fairseq_knn.cli.st_data import common
from fairseq_knn.speech_data.manifest import TEXTS

NAME = "insert"
HELP = "put texts of plain files into a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes MANIFEST with the lines of text files in its columns. Line n belongs to the id in line n of IDS, which "
        "`extract` wrote."
    )
    common.add_manifest(parser)
    parser.add_argument("--ids", type=Path, required=True, metavar="IDS", help="the ids, one a line")
    for column in TEXTS:
        parser.add_argument(
            f"--{column.replace('_', '-')}", type=Path, metavar="FILE", help=f"lines that become {column}"
        )
    common.add_output(parser)
    common.add_allow_missing(parser, "rows without a line and lines without a row")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.speech_data.texts import insert

    texts = {column: path for column in TEXTS if (path := getattr(args, column)) is not None}
    if not texts:
        raise ConfigurationError("there is nothing to insert: give --src-text, --tgt-text or both")
    inserted = insert(args.manifest, args.ids, texts, args.output, allow_missing=args.allow_missing)
    common.say_join(inserted.ids, args.manifest, args.ids)
    common.say_blank(inserted.blank)
    common.say_written(args.output, inserted.written)
    return 0
