"""Entry point of ``fairseq-knn``."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from fairseq_knn.cli import (
    build_index,
    cluster,
    convert,
    corpus,
    inspection,
    merge,
    path,
    plot_sampling,
    recipe,
    st_data,
    tune,
    verify,
)
from fairseq_knn.errors import UserError
from fairseq_knn.version import __version__

COMMANDS = (
    path,
    corpus,
    build_index,
    cluster,
    merge,
    inspection,
    verify,
    convert,
    tune,
    plot_sampling,
    st_data,
    recipe,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; what the user can mend ends in one sentence and status 1."""
    parser = argparse.ArgumentParser(
        prog="fairseq-knn",
        allow_abbrev=False,
        description="Tools around datastores, data actors, speech translation data and recipes. Training and "
        "translation themselves are stock fairseq commands with --user-dir $(fairseq-knn path), whose --help shows the "
        "flags of the --task that is named beside it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        # No abbreviations: what a command does not know is fairseq's, whose --temperature is not our --temperatures.
        subparser = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, passes_on=getattr(command, "PASSES_ON", None))
    args, passed_on = parser.parse_known_args(arguments)
    _quieten()
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


def _quieten() -> None:
    """Messages as from fairseq's programs, and none that only developers of other packages can mend."""
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
    )
    for name in ("matplotlib", "hydra", "fairseq.tasks.text_to_speech"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "\\n'config' is validated against ConfigStore")
    for category in (UserWarning, DeprecationWarning, FutureWarning):
        for module in ("hydra", "fairseq", "torch"):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}\.")


if __name__ == "__main__":
    sys.exit(main())
