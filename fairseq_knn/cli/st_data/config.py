"""``fairseq-knn st-data config``."""

import argparse
from pathlib import Path

NAME = "config"
HELP = "write the YAML file of speech_to_text for the expert's vocabulary"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fairseq_knn.speech_data.s2t_config import CMVN, POLICIES

    parser.description = (
        "Writes DIRECTORY/NAME, which stock speech_to_text reads (--config-yaml), with copies of the expert's "
        "dictionaries and codes beside it; codes of fastBPE become subword-nmt's. With neither --bpe-codes nor "
        "--tokenizer the manifests hold what `process` made of the texts with codes: symbols with spaces between them."
    )
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the manifests are")
    parser.add_argument("--name", default="config_imitkd.yaml", help="of the file (default: %(default)s)")
    parser.add_argument(
        "--expert-vocab-tgt", type=Path, required=True, metavar="DICT", help="the expert's dictionary of target symbols"
    )
    parser.add_argument(
        "--expert-vocab-src",
        type=Path,
        metavar="DICT",
        help="the expert's dictionary of source symbols, for transcripts",
    )
    parser.add_argument(
        "--bpe-codes", type=Path, metavar="FILE", help="cut texts while they are loaded, for manifests of whole words"
    )
    parser.add_argument(
        "--tokenizer",
        choices=("moses", "none"),
        default="none",
        help="moses: tokenise texts while they are loaded (default: none)",
    )
    parser.add_argument("--source-lang", metavar="L", help="with --tokenizer moses: language of the transcripts")
    parser.add_argument("--target-lang", metavar="L", help="with --tokenizer moses: language of the translations")
    parser.add_argument(
        "--specaugment", choices=POLICIES, default="lb", help="as fairseq's prep scripts set it (default: lb)"
    )
    parser.add_argument(
        "--cmvn", choices=CMVN, default="utterance", help="normalisation of the features (default: utterance)"
    )
    parser.add_argument("--global-cmvn", type=Path, metavar="NPZ", help="with --cmvn global: gcmvn.npz")
    parser.add_argument(
        "--input-feat-per-channel", type=int, default=80, metavar="N", help="features of a frame (default: 80)"
    )
    parser.add_argument("--input-channels", type=int, default=1, metavar="N", help="channels (default: 1)")
    parser.add_argument(
        "--audio-root", default="", metavar="DIR", help="what the manifests' paths are relative to, if not absolute"
    )


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.speech_data.s2t_config import S2TSettings, write_config

    languages = (args.source_lang, args.target_lang)
    if (args.tokenizer == "moses") != all(languages) or (args.tokenizer == "none" and any(languages)):
        raise ConfigurationError(
            f"--tokenizer is {args.tokenizer}, --source-lang {args.source_lang} and --target-lang {args.target_lang}: "
            "give both languages with --tokenizer moses, and none without"
        )
    settings = S2TSettings(
        target_dictionary=args.expert_vocab_tgt,
        source_dictionary=args.expert_vocab_src,
        codes=args.bpe_codes,
        languages=languages if args.tokenizer == "moses" else None,
        specaugment=args.specaugment,
        cmvn=args.cmvn,
        global_cmvn=args.global_cmvn,
        features=args.input_feat_per_channel,
        channels=args.input_channels,
        audio_root=args.audio_root,
    )
    config = write_config(args.directory, args.name, settings)
    print(f"written: {args.directory / args.name}, dictionary {config['vocab_filename']}")
    print(f"manifests that go with it hold {_texts(settings.languages is not None, settings.codes is not None)}")
    return 0


def _texts(tokenised: bool, cut: bool) -> str:
    if tokenised:
        return "ordinary text, which is tokenised" + (" and cut" if cut else "") + " while it is loaded"
    if cut:
        return "the text that the expert's subwords are cut from, which happens while it is loaded"
    return "symbols of the dictionary with spaces between them, as `process` with --bpe-codes writes them"
