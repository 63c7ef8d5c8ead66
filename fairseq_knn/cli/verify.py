"""``fairseq-knn verify``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fairseq_knn.verification.findings import Advance, Check, Finding, Vocabulary

NAME = "verify"
HELP = "read a whole datastore with its index and clusters, and tell everything that is wrong"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads every file of the datastore DIR once and prints all problems, each with its remedy: files missing or of "
        "the wrong size, checksums, values outside the vocabulary, keys that are NaN, infinite or 0, sentences missing "
        "or out of order, positions, totals; of the index: age, checksum, and whether stored keys are found with it; "
        "and of clusters: age, checksum, and whether every entry is in one. Ends with status 0 if the datastore is "
        "whole and 1 if not. Lines with 'note' are no problems. Of an unfinished datastore the shards that are there "
        "are checked. Datastores of knn-box have no checksums, so there it is sizes, keys, values, index and clusters."
    )
    parser.add_argument("datastore", type=Path, metavar="DIR", help="a datastore, finished or not")
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="target dictionary (dict.LANG.txt of the data directory) that the datastore must belong to",
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fairseq_knn.verification import open_check
    from fairseq_knn.verification.clusters import clusters_bytes
    from fairseq_knn.verification.index import index_bytes

    check = open_check(args.datastore, None if args.vocabulary is None else _vocabulary(args.vocabulary))
    total = check.bytes
    if check.datastore is not None:
        total += index_bytes(check.datastore) + clusters_bytes(check.datastore)
    problems = 0
    with tqdm(total=total, desc="reading", unit="B", unit_scale=True) as bar:
        for finding in _findings(check, bar.update):
            problems += finding.fault
            bar.write(f"{'problem' if finding.fault else 'note'}: {finding.text}")
    if problems:
        print(f"{args.datastore} has {problems} problem{'s' if problems > 1 else ''}; checked: {check.figures()}")
        return 1
    print(f"whole: {check.figures()}")
    return 0


def _findings(check: "Check", advance: "Advance") -> "Iterator[Finding]":
    from fairseq_knn.verification.clusters import clusters_findings
    from fairseq_knn.verification.index import index_findings

    yield from check.findings(advance)
    if check.datastore is not None:
        yield from index_findings(check.datastore, advance, testable=check.index_is_testable)
        yield from clusters_findings(check.datastore, advance)


def _vocabulary(path: Path) -> "Vocabulary":
    """
    Raises:
        ConfigurationError: fairseq cannot read it.
    """
    from fairseq.data import Dictionary

    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.storage.digest import vocabulary_digest
    from fairseq_knn.verification.content import Symbols
    from fairseq_knn.verification.findings import Vocabulary

    try:
        dictionary = Dictionary.load(str(path))
    except Exception as error:  # fairseq raises the base class itself where the encoding is wrong
        raise ConfigurationError(
            f"--vocabulary {path} cannot be read as a dictionary of fairseq ({' '.join(str(error).split())}): name the "
            "dict.LANG.txt of the target language"
        ) from error
    symbols = Symbols(len(dictionary), dictionary.pad(), dictionary.eos())
    return Vocabulary(symbols, vocabulary_digest(dictionary.symbols), str(path))
