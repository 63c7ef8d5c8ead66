"""Entry point of ``fairseq-knn``."""

import argparse
import sys
from collections.abc import Sequence

from fairseq_knn.cli import build_index, corpus, merge, path, tune
from fairseq_knn.errors import UserError
from fairseq_knn.version import __version__

COMMANDS = (path, corpus, build_index, merge, tune)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; what the user can mend ends in one sentence and status 1."""
    parser = argparse.ArgumentParser(
        prog="fairseq-knn",
        description="Tools around datastores. Training and translation themselves are stock fairseq commands with "
        "--user-dir $(fairseq-knn path).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, passes_on=getattr(command, "PASSES_ON", None))
    args, passed_on = parser.parse_known_args(arguments)
    args.passed_on = passed_on
    if args.passed_on and not args.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(args.passed_on)}")
    try:
        status: int = args.run(args)
        return status
    except UserError as error:
        print(f"fairseq-knn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fairseq-knn: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
