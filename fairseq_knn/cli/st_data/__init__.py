"""``fairseq-knn st-data``."""

import argparse

from fairseq_knn.cli.st_data import config, extract, insert, merge, process, replace

NAME = "st-data"
HELP = "prepare speech translation data for distillation: merge, extract, insert, process, config, replace"

COMMANDS = (merge, extract, insert, process, config, replace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Works on the manifests that stock fairseq's prep scripts write for speech_to_text (TSV). Columns are found by "
        "their names, rows by their ids; what does not match is an error or left out and counted, and never kept "
        "silently. Every command writes a new file and leaves what it read as it was."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False)
        command.add_arguments(subparser)
        subparser.set_defaults(st_data=command.run)


def run(args: argparse.Namespace) -> int:
    status: int = args.st_data(args)
    return status
