"""Commands measured in turns: what else the machine does meets all of them alike."""

import json
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflow import CommandFailed

Figures = dict[str, Any]
Reader = Callable[[str, float], Figures]


@dataclass(frozen=True)
class Spread:
    """Median and range over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float], digits: int) -> "Spread":
        return cls(*(round(choose(numbers), digits) for choose in (statistics.median, min, max)))


class Meter:
    """Runs commands in rounds: in each all of them once, one after the other. A finished round is kept.

    Args:
        directory: where each round leaves a file.
        environment: of the commands.
        rounds: how many.
        prefix: put before every command, such as ``chrt -r 5`` or ``taskset -c 0,1``.
    """

    def __init__(self, directory: Path, environment: dict[str, str], rounds: int, prefix: str) -> None:
        self._directory, self._environment, self._rounds, self._prefix = directory, environment, rounds, prefix
        directory.mkdir(parents=True, exist_ok=True)

    def measure(
        self, name: str, commands: dict[str, str], read: Reader, *, rounds: int | None = None, after: str = ""
    ) -> list[dict[str, Figures]]:
        """Run what was not measured before.

        Args:
            name: of the measurement.
            commands: by the name of what they measure; rounds of other commands are not kept.
            read: makes the figures out of a command's whole output and its seconds.
            rounds: as many as there are by default.
            after: the seconds count from the first line of output that holds this, or from the start.

        Returns:
            the figures of every round, by the names of the commands.

        Raises:
            CommandFailed: a command ended with an error.
        """
        results = []
        for number in range(1, (rounds or self._rounds) + 1):
            kept = self._kept(name, number, commands)
            if kept is None:
                print(f"\n[{name}, round {number}]", flush=True)
                kept = {system: read(*self._run(command, after)) for system, command in commands.items()}
                content = {"commands": commands, "figures": kept}
                self._file(name, number).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            print(f"  {kept}", flush=True)
            results.append(kept)
        return results

    def finished(self, name: str, commands: dict[str, str], rounds: int | None = None) -> bool:
        """Whether all rounds of :meth:`measure` are there."""
        return all(self._kept(name, number, commands) for number in range(1, (rounds or self._rounds) + 1))

    def _file(self, name: str, number: int) -> Path:
        return self._directory / f"{name}-{number}.json"

    def _kept(self, name: str, number: int, commands: dict[str, str]) -> dict[str, Figures] | None:
        file = self._file(name, number)
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"commands": None}
        return content["figures"] if content["commands"] == commands else None

    def _run(self, command: str, after: str) -> tuple[str, float]:
        """Output of a shell command, and its seconds from the line that holds *after* on."""
        print(f"$ {command}", flush=True)
        lines = []
        started = None if after else time.perf_counter()
        with subprocess.Popen(
            [*shlex.split(self._prefix), "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if started is None and after in line:
                    started = time.perf_counter()
                lines.append(line)
        ended = time.perf_counter()
        if process.returncode != 0 or started is None:
            raise CommandFailed("".join([*lines[-15:], f"ended with status {process.returncode}: {command}"]))
        return "".join(lines), ended - started


def ratios(rounds: Sequence[dict[str, Figures]], system: str, reference: str, figure: str) -> Spread:
    """How a figure of *system* compares with that of *reference* in the same round."""
    return Spread.of([figures[system][figure] / figures[reference][figure] for figures in rounds], 3)


def spread(rounds: Sequence[dict[str, Figures]], system: str, figure: str, digits: int = 1) -> Spread:
    """A figure of *system* over the rounds."""
    return Spread.of([figures[system][figure] for figures in rounds], digits)


def as_json(numbers: Spread) -> dict[str, float]:
    return asdict(numbers)
