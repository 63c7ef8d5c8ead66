"""submit.sh of every folder: what it would submit, its help, and a file for all folders on one cluster."""

import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from tests import no_slurm

FOLDERS = sorted(path.parent.name for path in no_slurm.SCRIPTS.glob("*/submit.sh"))


def run(folder: str, *command: str, path: str = "", **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a script of a folder, with programs of our own if there are."""
    environment = no_slurm.environment(PATH=f"{path}:{no_slurm.programs()}", **variables)
    script = no_slurm.SCRIPTS / folder / command[0]
    return subprocess.run([script, *command[1:]], env=environment, capture_output=True, text=True, check=False)


def filled_in(folder: str, tmp_path: Path) -> Path:
    """The settings of a folder with a path for every one that is empty."""
    text = (no_slurm.SCRIPTS / folder / "settings.sh").read_text()
    text = re.sub(r"(?m)^([A-Z_]+)= +#", lambda found: f"{found[1]}='{tmp_path}/a {found[1].lower()}' #", text)
    (tmp_path / "settings.sh").write_text(text)
    return tmp_path / "settings.sh"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_dry_run_shows_the_commands_and_submits_nothing(folder: str, tmp_path: Path) -> None:
    settings = filled_in(folder, tmp_path)
    (tmp_path / "cluster.sh").write_text("EVERY_JOB=(--account='ours and theirs')\n")
    variables = {"SETTINGS": settings, "CLUSTER": tmp_path / "cluster.sh"}
    done = run(folder, "submit.sh", "--dry-run", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    scripts = [Path(command[-1]) for command in commands]
    assert [script.name for script in scripts] == sorted(script.name for script in scripts)
    assert len({*scripts}) == len(scripts) >= 3
    previous = None
    for command, script in zip(commands, scripts, strict=True):
        assert script.parent.samefile(no_slurm.SCRIPTS / folder)
        assert script.stat().st_mode & stat.S_IXUSR
        assert command[0] == "sbatch"
        assert "--account=ours and theirs" in command
        waits = [word for word in command if word.startswith("--dependency=")]
        assert waits == ([] if previous is None else [f"--dependency=afterok:JOB_OF_{previous}"])
        numbers = "%A_%a" if any(word.startswith("--array=0-") for word in command) else "%j"
        assert f"--output={tmp_path}/a work/logs/%x-{numbers}.log" in command
        previous = script.name

    slurm = tmp_path / "slurm"
    slurm.mkdir()
    (slurm / "sbatch").write_text(f"#!/bin/sh\ntouch {tmp_path}/submitted\n")
    (slurm / "sbatch").chmod(0o755)
    assert run(folder, "submit.sh", "--dry-run", path=str(slurm), **variables).stdout == done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"settings.sh", "cluster.sh", "slurm"}


@pytest.mark.parametrize("folder", ["knn_mt", "knn_lm"])
def test_several_tasks_build_an_index(folder: str, tmp_path: Path) -> None:
    settings = filled_in(folder, tmp_path)
    settings.write_text(f"{settings.read_text()}\nINDEX_TASKS=3 INDEX_JOB=(--mem=9G)\n")
    done = run(folder, "submit.sh", "--dry-run", SETTINGS=settings)
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    index = [command for command in commands if "--mem=9G" in command and "cluster" not in command[-1]]
    assert [Path(command[-1]).name for command in index] == ["4_centroids.sh", "4_fill.sh", "4_index.sh"]
    assert ["--array=0-2" in command for command in index] == [False, True, False]
    for command, previous in zip(index[1:], index, strict=False):
        assert f"--dependency=afterok:JOB_OF_{Path(previous[-1]).name}" in command


@pytest.mark.parametrize("folder", FOLDERS)
def test_help_needs_no_settings(folder: str) -> None:
    done = run(folder, "submit.sh", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("All steps: ")
    assert "SETTINGS=my_settings.sh ./submit.sh" in done.stdout
    assert "--dry-run" in done.stdout
    step = next((no_slurm.SCRIPTS / folder).glob("2_*.sh")).name
    assert run(folder, step, "--help").stdout.startswith("Step 2")
    assert "SBATCH" not in run(folder, step, "--help").stdout


def test_what_a_script_is_called_with() -> None:
    for script, argument, told in (
        ("submit.sh", "--dryrun", "submit.sh: there is no '--dryrun' here: --help says what there is\n"),
        ("4_index.sh", "--dry-run", "4_index.sh: only submit.sh has --dry-run\n"),
    ):
        done = run("knn_mt", script, argument)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_no_such_cluster_file(tmp_path: Path) -> None:
    variables = {"SETTINGS": filled_in("knn_lm", tmp_path), "CLUSTER": tmp_path / "none.sh"}
    done = run("knn_lm", "submit.sh", **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"submit.sh: there is no file {tmp_path}/none.sh, which CLUSTER names\n"
