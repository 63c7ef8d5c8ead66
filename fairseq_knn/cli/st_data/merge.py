"""``fairseq-knn st-data merge``."""

import argparse
from pathlib import Path

from fairseq_knn.cli.st_data import common

NAME = "merge"
HELP = "one manifest with translations and transcripts of two"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the rows of ST with the texts of ASR as src_text, joined on id; order and other columns are those of "
        "ST. The prep scripts of fairseq write both for the same utterances, with --task st and asr (MuST-C), or with "
        "and without --tgt-lang (CoVoST)."
    )
    parser.add_argument("translations", type=Path, metavar="ST", help="manifest with translations, as train_st.tsv")
    parser.add_argument("transcripts", type=Path, metavar="ASR", help="manifest with transcripts, as train_asr.tsv")
    common.add_output(parser)
    common.add_allow_missing(parser, "ids that one of the two lacks")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.speech_data.merging import merge

    merged = merge(args.translations, args.transcripts, args.output, allow_missing=args.allow_missing)
    common.say_join(merged.ids, args.translations, args.transcripts)
    common.say_blank({"src_text": merged.blank})
    common.say_written(args.output, merged.written)
    return 0
