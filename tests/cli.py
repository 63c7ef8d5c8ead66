"""Running the stock programs: in a process of their own, or, faster, inside the test's."""

import contextlib
import importlib
import io
import logging
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import fairseq_knn

PACKAGE = Path(fairseq_knn.__file__).parent
ROOT = PACKAGE.parent
_TIMEOUT = 600  # seconds; a run takes a few


@dataclass(frozen=True)
class Hypothesis:
    """What a stock program printed for one sentence: scores are logarithms to the base 2."""

    text: str
    score: float
    positional: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """How a program ended.

    Args:
        status: its exit status.
        output: standard output.
        log: log messages, and in a process of its own everything on standard error.
    """

    status: int
    output: str
    log: str

    def lines(self, kinds: str = "STHDP") -> list[str]:
        """Lines of the given kinds (``S-``, ``H-``, ...) in the order they were printed."""
        return [line for line in self.output.splitlines() if re.match(f"[{kinds}]-\\d+\t", line)]

    def texts(self, kind: str = "D") -> dict[int, str]:
        """The last column of lines of one kind by sentence."""
        rows = [line.split("\t") for line in self.lines(kind)]
        return {int(row[0][2:]): row[-1] for row in rows}

    def hypotheses(self) -> dict[int, Hypothesis]:
        """What was printed for each sentence (with ``--nbest``: the last)."""
        scores = {int(line.split("\t")[0][2:]): line.split("\t")[1] for line in self.lines("H")}
        texts, positional = self.texts("D"), self.texts("P")
        return {i: Hypothesis(texts[i], float(scores[i]), tuple(map(float, positional[i].split()))) for i in scores}

    @property
    def bleu(self) -> float:
        """BLEU as fairseq-generate prints it."""
        found = re.search(r"BLEU4? = ([\d.]+)", self.output)
        assert found is not None, self.output[-2000:] + self.log[-2000:]
        return float(found[1])

    @property
    def closing_line(self) -> str:
        """The sentence in which the plug-in says how many sentences were processed."""
        lines = re.findall(r"(?:[\d,]+ of )?[\d,]+ sentences (?:of '.*' )?processed.*", self.log + self.output)
        assert len(lines) == 1, self.log[-2000:]
        return str(lines[0])

    @property
    def errors(self) -> list[str]:
        """Lines in which the plug-in says what the user can mend."""
        marks = ("fairseq_knn: error: ", "fairseq-knn: error: ")
        return [line for line in self.log.splitlines() if line.startswith(marks)]


def run(
    program: str,
    *arguments: object,
    stdin: str = "",
    environment: dict[str, str] | None = None,
    directory: Path = ROOT,
) -> Run:
    """Run an installed program in a process of its own.

    Args:
        program: name of a console script (``fairseq-generate``), ``python`` or ``bash``.
        arguments: its arguments.
        stdin: what is piped into it.
        environment: variables to add.
        directory: where it runs.
    """
    done = subprocess.run(
        _command(program, arguments),
        input=stdin,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, **(environment or {})},
        timeout=_TIMEOUT,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def run_stock_generate(*arguments: object) -> Run:
    """Run fairseq-generate on the CPU in a process that never sees the plug-in.

    torch must be told that checkpoints hold an ``argparse.Namespace``; stock fairseq fails on that.
    """
    program = (
        "import argparse, torch; torch.serialization.add_safe_globals([argparse.Namespace]); "
        "from fairseq_cli.generate import cli_main; cli_main()"
    )
    return run("python", "-c", program, *arguments, "--cpu")


@contextlib.contextmanager
def started(program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program running beside this process; it is killed if it outlives the block."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(_command(program, arguments), stdin=nowhere, stdout=nowhere, stderr=nowhere, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scripts() -> Path:
    """Where the installed programs are."""
    return Path(sysconfig.get_path("scripts"))


def _command(program: str, arguments: tuple[object, ...]) -> list[str]:
    others = {"python": sys.executable, "bash": "bash"}
    return [others.get(program) or str(scripts() / program), *map(str, arguments)]


def call(program: str, *arguments: object) -> Run:
    """Run a stock program inside this process; what it raises but ``SystemExit`` is passed on.

    Files are not forced onto the disk: that takes most of the time of a small build.

    Args:
        program: ``fairseq-generate``, ``fairseq-interactive``, ``fairseq-train``, ...
        arguments: its arguments.
    """
    module = importlib.import_module(f"fairseq_cli.{program.removeprefix('fairseq-').replace('-', '_')}")
    output, status = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [program, *map(str, arguments)]),
        mock.patch("os.fsync"),
        contextlib.redirect_stdout(output),
        _log() as log,
        _at_exit(),
    ):
        try:
            module.cli_main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Run(status, output.getvalue(), log.getvalue())


def generate(*arguments: object) -> Run:
    """:func:`call` fairseq-generate with the plug-in, on the CPU.

    Loading workers would outlive the run: torch waits seconds for them when it collects the loader.
    """
    return call("fairseq-generate", "--num-workers", 0, *arguments, "--user-dir", PACKAGE, "--cpu")


@contextlib.contextmanager
def _log() -> Iterator[io.StringIO]:
    """Everything that is logged within the block, and nowhere else."""
    text = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [logging.StreamHandler(text)]
    root.setLevel(logging.INFO)
    try:
        yield text
    finally:
        root.handlers = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _at_exit() -> Iterator[None]:
    """What the program wants done when the interpreter ends is done when the block ends."""
    callbacks: list[Callable[[], object]] = []

    def register(callback: Callable[..., object], *args: object, **kwargs: object) -> None:
        callbacks.append(lambda: callback(*args, **kwargs))

    with mock.patch("atexit.register", register):
        yield
    for callback in reversed(callbacks):
        callback()
