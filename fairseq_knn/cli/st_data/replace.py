"""``fairseq-knn st-data replace``."""

import argparse
from pathlib import Path

from fairseq_knn.cli.st_data import common
from fairseq_knn.speech_data.manifest import SOURCE_TEXT, TARGET_TEXT

NAME = "replace"
HELP = "put translations and transcripts that fairseq-generate made into a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the manifest with the hypotheses of logs as tgt_text (-o), src_text (-a) or both. Sample n is row n of "
        "the split that was generated, counted from 0; references in the logs (T-) are compared with the manifest's "
        "texts. Detokenised hypotheses (D-) are taken, those before (H-) where there are none."
    )
    parser.add_argument("-d", "--manifest", type=Path, required=True, metavar="TSV", help="manifest of speech_to_text")
    parser.add_argument(
        "-o",
        "--translations",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="log of the expert's run, or one of each shard",
    )
    parser.add_argument(
        "-a",
        "--transcripts",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="log of the ASR model's run, or one of each shard",
    )
    parser.add_argument(
        "--generated-from",
        type=Path,
        metavar="TSV",
        help="the manifest that the logs were generated from, if it is another one; rows are found by id",
    )
    common.add_output(parser)
    common.add_allow_missing(parser, "rows without a hypothesis")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.speech_data.replacing import replace

    logs = {TARGET_TEXT: args.translations, SOURCE_TEXT: args.transcripts}
    logs = {column: paths for column, paths in logs.items() if paths is not None}
    if not logs:
        raise ConfigurationError("there is nothing to replace: give --translations, --transcripts or both")
    replaced = replace(
        args.manifest, logs, args.output, generated_from=args.generated_from, allow_missing=args.allow_missing
    )
    print(f"read: {replaced.read:,} rows of {args.manifest}")
    for column, counts in replaced.columns.items():
        print(f"{column}: {counts.samples:,} samples, matched {common.share(counts.matched, replaced.read)}")
        if counts.checked < counts.samples:
            unchecked = counts.samples - counts.checked
            print(f"{column}: {unchecked:,} samples without a reference to compare; their numbers alone say their rows")
        if counts.raw:
            print(f"{column}: {counts.raw:,} of H- lines, for want of D- lines")
        if counts.cut:
            print(f"{column}: {counts.cut:,} are in subwords (@@ or ▁); --post-process of fairseq-generate joins them")
    common.say_blank({column: counts.blank for column, counts in replaced.columns.items()})
    if replaced.written < replaced.read:
        print(f"left out: {replaced.read - replaced.written:,} rows without a hypothesis")
    common.say_written(args.output, replaced.written)
    return 0
