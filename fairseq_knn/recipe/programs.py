"""Stock fairseq programs as child processes."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from fairseq_knn.errors import ConfigurationError

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def program(name: str) -> str:
    """Path of a console script: of this environment, else of ``PATH``.

    Raises:
        ConfigurationError: there is none.
    """
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise ConfigurationError(f"the program {name} is not installed beside {sys.executable}: install fairseq-fixed")
    return found


def shown(name: str, arguments: Sequence[str]) -> str:
    """The command as it can be typed into a shell."""
    return shlex.join([name, *arguments])


def run(name: str, arguments: Sequence[str], output: IO[bytes] | None = None) -> int:
    """Run a program to its end; signals that reach this process reach it.

    Args:
        name: of the console script.
        arguments: its arguments.
        output: where its standard output goes, if not where this process's goes.

    Returns:
        Its exit status; 128 and the number of the signal where one has ended it.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    sys.stdout.flush()
    with _signals() as signals, subprocess.Popen([program(name), *arguments], stdout=output) as child:
        signals.pass_on_to(child)
        status = child.wait()
    if status in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    return status if status >= 0 else 128 - status


class _Signals:
    """What reaches this process, for a child; what comes before there is one waits for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._waiting: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A terminal has sent its Ctrl-C to the child already.
        if number == signal.SIGINT and _in_the_foreground():
            return
        if self._child is None:
            self._waiting.append(number)
        else:
            self._child.send_signal(number)

    def pass_on_to(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        for number in self._waiting:
            child.send_signal(number)


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    previous = {number: signal.signal(number, signals) for number in (*_PASSED_ON, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _in_the_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
