"""``fairseq-knn plot-sampling``."""

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.round_log import MARK, Round, read_rounds

NAME = "plot-sampling"
HELP = "draw how much a training with a data actor sampled each language, from its log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draws the probability of each language over the updates of the model, from what fairseq-train with --task "
        "translation_multi_dds and --data-actor logs after every round: a panel for every LOG. Where a resumed "
        "training repeats updates, the later run counts."
    )
    parser.add_argument(
        "logs",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="what fairseq-train printed, or wrote with --log-file",
    )
    parser.add_argument(
        "--resumed", action="store_true", help="the logs are of one training that was resumed, the oldest first"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PNG", help="where the picture goes")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.cli.sampling_curves import draw_sampling  # matplotlib, which --help does not need

    trainings = [args.logs] if args.resumed else [[log] for log in args.logs]
    titles = _titles([logs[-1] for logs in trainings])
    draw_sampling({title: _rounds(logs) for title, logs in zip(titles, trainings, strict=True)}, args.output)
    print(f"written to {args.output}")
    return 0


def _rounds(logs: Sequence[Path]) -> list[Round]:
    rounds = read_rounds(chain.from_iterable(map(_lines, logs)))
    if not rounds:
        raise ConfigurationError(
            f"there is no line {MARK!r} in {', '.join(map(str, logs))}: draw the log of a training with --task "
            "translation_multi_dds, --data-actor and --update-language-sampling that made so many updates"
        )
    return rounds


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"{log} cannot be read ({error.strerror}): pass what fairseq-train printed, or wrote with --log-file"
        ) from error


def _titles(paths: Sequence[Path]) -> list[str]:
    """What tells the logs apart: their names, or their whole paths where names are the same."""
    names = [path.stem for path in paths]
    if len(set(names)) == len(names):
        return names
    whole = [str(path) for path in paths]
    if len(set(whole)) < len(whole):
        raise ConfigurationError("the same log is given twice: name each once")
    return whole
