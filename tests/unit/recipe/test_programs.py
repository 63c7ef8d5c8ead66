"""Programs as children: status, and signals that are passed on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe import programs

RUNS = """
import sys
from fairseq_knn.recipe import programs
programs.program = lambda name: name
sys.exit(programs.run(sys.argv[1], sys.argv[2:]))
"""


def run(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", RUNS, *command], cwd=Path(__file__).parents[3])


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -TERM $$", 128 + 15)])
def test_the_status_comes_through(script: str, status: int) -> None:
    assert run("sh", "-c", script).wait() == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_passed_on(number: signal.Signals, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 7' {number.name.removeprefix('SIG')}; touch {ready}; for i in $(seq 600); do sleep 0.05; done"
    with run("sh", "-c", script) as parent:
        while not ready.exists():
            time.sleep(0.05)
        parent.send_signal(number)
        assert parent.wait() == 7


def test_a_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigurationError, match="the program fairseq-nothing is not installed"):
        programs.program("fairseq-nothing")
    assert Path(programs.program("fairseq-hydra-train")).name == "fairseq-hydra-train"
