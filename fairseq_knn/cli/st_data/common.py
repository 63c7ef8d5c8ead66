"""Arguments and lines that the commands have in common."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fairseq_knn.speech_data.joining import Join
from fairseq_knn.speech_data.manifest import TEXTS


def add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest of speech_to_text (TSV)")


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="TSV", help="manifest to write")


def add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns", nargs="+", choices=TEXTS, default=list(TEXTS), help=f"which texts (default: {' '.join(TEXTS)})"
    )


def add_allow_missing(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--allow-missing", action="store_true", help=f"leave out {what} (without it they are an error)")


def share(part: int, whole: int) -> str:
    """``98 of 100 (98.00 %)``."""
    return f"{part:,} of {whole:,} ({100 * part / whole if whole else 0:.2f} %)"


def say_join(joined: Join, left: Path, right: Path) -> None:
    print(f"read: {joined.left:,} rows of {left}, {joined.right:,} of {right}")
    print(f"matched: {share(joined.matched, joined.left)}, {share(joined.matched, joined.right)}")
    if joined.left_only or joined.right_only:
        print(f"left out: {joined.left_only:,} that only {left} has, {joined.right_only:,} that only {right} has")


def say_blank(blank: Mapping[str, int]) -> None:
    for what, rows in blank.items():
        if rows:
            print(f"empty texts: {rows:,} in {what}")


def say_written(output: Path, rows: int) -> None:
    print(f"written: {rows:,} rows to {output}")
