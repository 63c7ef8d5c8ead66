"""Kills builds of a datastore at many moments, resumes them, and compares the result byte for byte.

As a program, for the record (some minutes)::

    python -m tests.integration.kill_campaign

prints a table; the exit status is 1 if any resumed build differs from the uninterrupted one.
"""

import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import cli, toy

COMMAND = ("--knn-shard-sentences", 250, "--max-tokens", 600)  # of the training data: eight shards

# The names are explained in `moments.py`. "#n" is the n-th time.
MOMENTS = (
    ("the plan is half written", "write .plan.json"),
    ("only the plan is there", "replaced plan.json"),
    ("shard 0: nothing written yet", "open .keys-00000.spool"),
    ("shard 0: in the middle of its third batch", "write .keys-00000.spool #3"),
    ("shard 1: its last batch is done, sorting begins", "open .keys-00001.npy"),
    ("shard 1: its keys are half written", "write .keys-00001.npy #125"),
    ("shard 2: its keys are written, but have no name", "replace keys-00002.npy"),
    ("shard 2: between keys and values", "replaced keys-00002.npy"),
    ("shard 3: its values are half written", "write .values-00003.npy #125"),
    ("shard 3: between values and sentences", "replaced values-00003.npy"),
    ("shard 4: its sentence numbers are half written", "write .sentences-00004.npy #2"),
    ("shard 4: between sentences and positions", "replaced sentences-00004.npy"),
    ("shard 5: its positions are half written", "write .positions-00005.npy #125"),
    ("shard 5: its log-probabilities are half written", "write .log_probs-00005.npy #125"),
    ("shard 5: all arrays there, not committed", "replaced log_probs-00005.npy"),
    ("shard 6: committing, the record is half written", "write .commit-00006.json"),
    ("shard 6: committing, the record has no name yet", "replace commit-00006.json"),
    ("shard 6: just committed", "replaced commit-00006.json"),
    ("shard 7: before its temporary file is deleted", "unlink .keys-00007.spool"),
    ("the manifest is half written", "write .manifest.json"),
    ("the manifest is written, but has no name", "replace manifest.json"),
)
# With --knn-overwrite, over a finished datastore.
OVERWRITING = (
    ("overwriting: before the old shards go", "rename shards"),
    ("overwriting: before the old manifest goes", "unlink manifest.json"),
    ("overwriting: shard 2, between keys and values", "replaced keys-00002.npy"),
    ("overwriting: the new manifest is half written", "write .manifest.json"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a killed and resumed build.

    Args:
        committed: shards that were committed when it was killed.
        leftovers: half-written files at that time.
        kept: shards that the resumed run did not write again.
        differences: files that differ from the uninterrupted build's, are missing, or too many.
    """

    committed: int
    leftovers: int
    kept: int
    differences: tuple[str, ...]


def kill(path: Path, moment: str, *arguments: object, split: str = "train") -> None:
    """Build *path* in a process that is killed at a moment."""
    killed = cli.run(
        *("python", "-m", "tests.integration.moments", path, "--kill", moment, "fairseq-generate"),
        *toy.build_arguments(path, *arguments, split=split),
        *("--user-dir", cli.PACKAGE, "--cpu"),
    )
    if killed.status != -signal.SIGKILL:
        raise RuntimeError(f"{moment!r} was not reached (status {killed.status}): {killed.log[-2000:]}")


def resume_in_new_process(path: Path, *arguments: object, split: str = "train") -> cli.Run:
    return cli.run(
        "fairseq-generate",
        *toy.build_arguments(path, *arguments, split=split),
        *("--user-dir", cli.PACKAGE, "--cpu"),
    )


def examine(
    path: Path,
    moment: str,
    uninterrupted: Path,
    *arguments: object,
    split: str = "train",
    resume: Callable[..., cli.Run] = resume_in_new_process,
) -> Outcome:
    """Kill a build at a moment, run the same command again, and compare."""
    kill(path, moment, *arguments, split=split)
    committed = len(list(path.glob("shards/commit-*.json")))
    leftovers = len(list(path.rglob(".*")))
    run = resume(path, *arguments, split=split)
    if run.status:
        raise RuntimeError(f"the build could not be resumed after {moment!r}: {run.log[-2000:]}")
    kept = re.search(r"shards to write, (\d+) are there already", run.log)
    return Outcome(committed, leftovers, int(kept[1]) if kept else 0, differences(path, uninterrupted))


def differences(path: Path, uninterrupted: Path) -> tuple[str, ...]:
    """Names of the files that are not the same in both directories."""
    left, right = toy.content(path), toy.content(uninterrupted)
    return tuple(sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name)))


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="kill-campaign-"))
    try:
        return _campaign(directory)
    finally:
        shutil.rmtree(directory)


def _campaign(directory: Path) -> int:
    uninterrupted, path = directory / "uninterrupted", directory / "killed"
    toy.build(uninterrupted, *COMMAND, split="train")
    shards = len(list(uninterrupted.glob("shards/commit-*.json")))
    failures = 0
    print(f"| # | killed when | shards committed (of {shards}) | half-written files | kept on resuming | identical |")
    print("|---|---|---|---|---|---|")
    rows = [(*row, ()) for row in MOMENTS] + [(*row, ("--knn-overwrite",)) for row in OVERWRITING]
    for number, (words, moment, overwrite) in enumerate(rows, start=1):
        shutil.rmtree(path, ignore_errors=True)
        if overwrite:  # something else, so that nothing old can be taken for new
            toy.build(path, *COMMAND, "--knn-key", "ffn_input", split="train")
        outcome = examine(path, moment, uninterrupted, *COMMAND, *overwrite)
        failures += bool(outcome.differences)
        same = "yes" if not outcome.differences else f"NO: {', '.join(outcome.differences)}"
        figures = f"{outcome.committed} | {outcome.leftovers} | {outcome.kept}"
        print(f"| {number} | {words} (`{moment}`) | {figures} | {same} |", flush=True)
    shutil.rmtree(path)
    for _, moment in MOMENTS:
        kill(path, moment, *COMMAND)
    resume_in_new_process(path, *COMMAND)
    different = differences(path, uninterrupted)
    failures += bool(different)
    same = "yes" if not different else f"NO: {', '.join(different)}"
    print(f"| {len(rows) + 1} | one build, killed at 1 to {len(MOMENTS)} in turn | | | | {same} |")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
