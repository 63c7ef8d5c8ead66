"""Running a chain of commands that can be interrupted, read and copied."""

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# As a shell command has it: the package of this environment, which was installed from a checkout or from a wheel.
USER_DIR = "$(fairseq-knn path)"

# Lines of a program's output worth showing while one waits.
_INTERESTING = re.compile(
    r"fairseq_knn|fairseq-knn|train_inner|valid on|Translated|Generate |Evaluated|Perplexity"
    r"|recall|best:|entries|error|Error|licen[cs]e|sentences"
)
_NOISE = re.compile(r"^[STHDP]-\d|UserWarning|_name|swigfaiss")


class CommandFailed(Exception):
    """A command of the chain ended with an error."""


class Workflow:
    """Runs named commands once each: what has succeeded before, with the same words, is skipped.

    Args:
        directory: where logs go; a command's log appears under its name when it has succeeded.

    Attributes:
        environment: of the commands; the programs of this interpreter's environment come first.
        seconds: what all of them took, in this run or before; of those side by side, their sum over how many they were.
        processor_seconds: what they computed, on all cores together: how busy the machine was otherwise does not count.
    """

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
        self.seconds = self.processor_seconds = 0.0
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run_all(self, commands: Mapping[str, str], side_by_side: int = 2) -> dict[str, str]:
        """Run commands that do not need each other, several at a time, with one thread of computation each.

        Args:
            commands: by the names of their steps.
            side_by_side: how many.

        Returns:
            Their outputs.

        Raises:
            CommandFailed: one of them ended with an error; those that had begun have ended, and no other has begun.
        """
        environment = {**self.environment, "OMP_NUM_THREADS": "1"}
        failed = threading.Event()

        def run(name: str) -> str:
            if failed.is_set():
                return ""
            try:
                return self._run(name, commands[name], environment, f"{name}: ")
            except CommandFailed:
                failed.set()
                raise

        with ThreadPoolExecutor(side_by_side) as pool:
            outputs = dict(zip(commands, pool.map(run, commands), strict=True))
        for output in outputs.values():
            self._add_time(output, side_by_side)
        return outputs

    def run(self, name: str, command: str) -> str:
        """Run a shell command, show the telling lines of its output, and return all of it.

        Args:
            name: of the step; its log is ``logs/NAME.log``.
            command: as one would type it.

        Raises:
            CommandFailed: it ended with an error; its whole output is in ``logs/NAME.failed.log``.
        """
        output = self._run(name, command, self.environment)
        self._add_time(output)
        return output

    def _run(self, name: str, command: str, environment: Mapping[str, str], prefix: str = "") -> str:
        words = " ".join(command.split())
        log = self.logs / f"{name}.log"
        print(f"\n[{name}]\n$ {_wrap(words)}", flush=True)
        if log.exists() and (content := log.read_text(encoding="utf-8")).startswith(f"$ {words}\n"):
            print(f"  {prefix}done before", flush=True)
            return content
        partial = log.with_suffix(".part")
        started = time.monotonic()
        with partial.open("w", buffering=1, encoding="utf-8") as file:
            file.write(f"$ {words}\n")
            process = subprocess.Popen(
                words,
                shell=True,
                executable="/bin/bash",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
            )
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if _INTERESTING.search(line) and not _NOISE.search(line):
                    print(f"  {prefix}{line.rstrip()[:200]}", flush=True)
            # As wait(), which does not tell what this process alone, with its children, has computed.
            _, ended, used = os.wait4(process.pid, 0)
            process.returncode = status = os.waitstatus_to_exitcode(ended)
        if status != 0:
            failed = log.with_suffix(".failed.log")
            partial.replace(failed)
            tail = failed.read_text(encoding="utf-8").splitlines()[-5:]
            raise CommandFailed("\n".join([*tail, f"[{name}] ended with status {status}; its output is in {failed}"]))
        with partial.open("a", encoding="utf-8") as file:
            processors = used.ru_utime + used.ru_stime
            file.write(f"# {time.monotonic() - started:.1f} s, {processors:.1f} s of processors, ")
            file.write(f"{used.ru_maxrss / 1024:.0f} MiB of memory\n")
        partial.replace(log)
        content = log.read_text(encoding="utf-8")
        print(f"  {prefix}{content.splitlines()[-1].removeprefix('# ')}", flush=True)
        return content

    def _add_time(self, log: str, side_by_side: int = 1) -> None:
        seconds, processors = times(log)
        self.seconds += seconds / side_by_side
        self.processor_seconds += processors


def times(log: str) -> tuple[float, float]:
    """Seconds that a command took, and seconds of processors: the last line of its log."""
    last = re.search(r"^# ([\d.]+) s, ([\d.]+) s of processors(?:, \d+ MiB of memory)?\n\Z", log, re.MULTILINE)
    return (float(last[1]), float(last[2])) if last else (0.0, 0.0)


def peak_memory(log: str) -> float:
    """Memory that a command took at most, in MiB: the last line of its log."""
    last = re.search(r"^# .* s of processors, (\d+) MiB of memory\n\Z", log, re.MULTILINE)
    return float(last[1]) if last else 0.0


def _wrap(command: str) -> str:
    """Break a long command before its options, so that it can be read and still be copied."""
    if len(command) < 110:
        return command
    lines = [""]
    for word in re.split(r" (?=--?[a-zA-Z])", command):
        if lines[-1] and len(lines[-1]) + len(word) > 104:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return " \\\n    ".join(lines)


def quote(path: Path) -> str:
    """A path as a word of a shell command."""
    return shlex.quote(str(path))
