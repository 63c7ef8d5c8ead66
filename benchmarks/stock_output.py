"""What fairseq-generate says about a run."""

import json
import re

from workflow import CommandFailed

from benchmarks.rounds import Figures

# The last line before the model is read.
LOADING = "loading model(s) from"

_TRANSLATED = re.compile(r"Translated ([\d,]+) sentences \(([\d,]+) tokens\) in [\d.]+s \([\d.]+ sentences/s, ([\d.]+)")
_CLOSING = re.compile(r"sentences of '\w+' processed[^|]*\| (\{.*\})")


def read_run(output: str, seconds: float) -> Figures:
    """Figures of a run.

    Args:
        output: everything it printed.
        seconds: how long it took.

    Returns:
        ``sentences``, ``tokens``; ``tokens_per_s`` by fairseq's own clock, which runs while batches are translated or
        scored; ``seconds``; ``search_ms``, the mean time of a search, if there were any.

    Raises:
        CommandFailed: the output has no closing line.
    """
    line = _TRANSLATED.search(output)
    if line is None:
        raise CommandFailed(f"{output[-1000:]}\nfairseq-generate did not say how many sentences it translated")
    figures: Figures = {
        "sentences": int(line[1].replace(",", "")),
        "tokens": int(line[2].replace(",", "")),
        "tokens_per_s": float(line[3]),
        "seconds": round(seconds, 2),
    }
    closing = _CLOSING.search(output)
    if closing and "knn_search_ms" in (told := json.loads(closing[1])):
        figures["search_ms"] = told["knn_search_ms"]
    return figures


def require_equal(rounds: list[dict[str, Figures]], figure: str) -> None:
    """All commands of all rounds must have done the same work.

    Raises:
        CommandFailed: they have not.
    """
    seen = {figures[system][figure] for figures in rounds for system in figures}
    if len(seen) > 1:
        raise CommandFailed(f"the {figure} of the measured commands differ ({sorted(seen)}): they cannot be compared")
