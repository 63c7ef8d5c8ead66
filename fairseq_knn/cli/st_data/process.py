"""``fairseq-knn st-data process``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_knn.cli.st_data import common
from fairseq_knn.speech_data.manifest import SOURCE_TEXT

if TYPE_CHECKING:
    from fairseq_knn.speech_data.processing import Processing

NAME = "process"
HELP = "normalise, tokenise and cut the texts of a manifest as the expert's training data was"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes MANIFEST with its texts as Moses's scripts leave them, cut into the expert's subwords. Punctuation is "
        "normalised and what cannot be printed removed in training splits alone, whose names begin with train, as "
        "fairseq asks for. A column `processed` says what was done; nothing is done twice."
    )
    common.add_manifest(parser)
    common.add_output(parser)
    parser.add_argument("--source-lang", metavar="L", help="language of src_text, as en")
    parser.add_argument("--target-lang", metavar="L", help="language of tgt_text, as de")
    parser.add_argument(
        "--tokenizer",
        choices=("moses", "none"),
        default="moses",
        help="none: for texts that are tokens already, and for sentencepiece models of plain text (default: moses)",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="normalise punctuation or not, whatever the manifest is called",
    )
    parser.add_argument(
        "--bpe-codes",
        type=Path,
        metavar="FILE",
        help="the expert's: codes of fastBPE or subword-nmt, or a sentencepiece model (default: texts are not cut)",
    )
    for side, column in (("src", "src_text"), ("tgt", "tgt_text")):
        parser.add_argument(
            f"--expert-vocab-{side}",
            type=Path,
            metavar="DICT",
            help=f"the expert's dictionary for {column}: codes make no subwords that it lacks; symbols it lacks are "
            "counted",
        )
    common.add_columns(parser)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fairseq_knn.speech_data.processing import process

    normalize = args.manifest.name.startswith("train") if args.normalize is None else args.normalize
    columns = {column: _processing(args, column, normalize) for column in dict.fromkeys(args.columns)}
    with tqdm(desc="rows", unit="", unit_scale=True, delay=1) as bar:
        processed = process(args.manifest, args.output, columns, bar.update)
    print(f"read: {processed.read:,} rows of {args.manifest}")
    if args.tokenizer == "moses":
        print(f"punctuation: {'normalised' if normalize else 'left as it is'}")
    for column, counts in processed.columns.items():
        unknown = ""
        if columns[column].dictionary is not None:
            unknown = f", not in the dictionary: {common.share(counts.unknown, counts.symbols)}"
        print(f"{column}: {counts.symbols:,} symbols{unknown}")
    common.say_blank({column: counts.blank for column, counts in processed.columns.items()})
    common.say_written(args.output, processed.written)
    return 0


def _processing(args: argparse.Namespace, column: str, normalize: bool) -> "Processing":
    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.speech_data.moses import Moses
    from fairseq_knn.speech_data.processing import Processing
    from fairseq_knn.subwords import load_subwords, read_symbols

    side, language, dictionary = (
        ("source", args.source_lang, args.expert_vocab_src)
        if column == SOURCE_TEXT
        else ("target", args.target_lang, args.expert_vocab_tgt)
    )
    moses = None
    if args.tokenizer == "moses":
        if language is None:
            raise ConfigurationError(
                f"the language of {column} is not given, but Moses's rules depend on it: add --{side}-lang, or "
                "--tokenizer none"
            )
        moses = Moses(language, normalize=normalize)
        if not moses.knows_language:
            print(f"{column}: no abbreviations of {language} are known; those of English keep their dots")
    elif args.normalize or language is not None:
        raise ConfigurationError(
            f"--normalize and --{side}-lang belong to Moses's rules: leave them out, or --tokenizer none"
        )
    return Processing(
        moses,
        None if args.bpe_codes is None else load_subwords(args.bpe_codes, dictionary),
        None if dictionary is None else read_symbols(dictionary),
    )
