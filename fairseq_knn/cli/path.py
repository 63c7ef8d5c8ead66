"""``fairseq-knn path``."""

import argparse
from pathlib import Path

NAME = "path"
HELP = "print the directory to pass to fairseq as --user-dir"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it has none


def run(args: argparse.Namespace) -> int:
    print(Path(__file__).parent.parent)
    return 0
