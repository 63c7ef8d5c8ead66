"""Running a chain of commands that can be interrupted, read and copied."""

import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

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
        seconds: what all of them took, in this run or before.
        processor_seconds: what they computed, on all cores together: how busy the machine was otherwise does not count.
    """

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
        self.seconds = self.processor_seconds = 0.0
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(self, name: str, command: str) -> str:
        """Run a shell command, show the telling lines of its output, and return all of it.

        Args:
            name: of the step; its log is ``logs/NAME.log``.
            command: as one would type it.

        Raises:
            CommandFailed: it ended with an error; its whole output is in ``logs/NAME.failed.log``.
        """
        words = " ".join(command.split())
        log = self.logs / f"{name}.log"
        print(f"\n[{name}]\n$ {_wrap(words)}", flush=True)
        if log.exists() and (content := log.read_text(encoding="utf-8")).startswith(f"$ {words}\n"):
            print("  done before", flush=True)
            self._add_time(content)
            return content
        partial = log.with_suffix(".part")
        started, before = time.monotonic(), _processor_seconds()
        with partial.open("w", buffering=1, encoding="utf-8") as file:
            file.write(f"$ {words}\n")
            process = subprocess.Popen(
                words,
                shell=True,
                executable="/bin/bash",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment,
            )
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                if _INTERESTING.search(line) and not _NOISE.search(line):
                    print(f"  {line.rstrip()[:200]}", flush=True)
            status = process.wait()
        if status != 0:
            failed = log.with_suffix(".failed.log")
            partial.replace(failed)
            tail = failed.read_text(encoding="utf-8").splitlines()[-5:]
            raise CommandFailed("\n".join([*tail, f"[{name}] ended with status {status}; its output is in {failed}"]))
        with partial.open("a", encoding="utf-8") as file:
            processors = _processor_seconds() - before
            file.write(f"# {time.monotonic() - started:.1f} s, {processors:.1f} s of processors\n")
        partial.replace(log)
        content = log.read_text(encoding="utf-8")
        self._add_time(content)
        print(f"  {content.splitlines()[-1].removeprefix('# ')}", flush=True)
        return content

    def _add_time(self, log: str) -> None:
        """What a command took is the last line of its log."""
        if last := re.search(r"^# ([\d.]+) s, ([\d.]+) s of processors\n\Z", log, re.MULTILINE):
            self.seconds += float(last[1])
            self.processor_seconds += float(last[2])


def _processor_seconds() -> float:
    """What the processes this one has started have computed so far, on all cores together."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
