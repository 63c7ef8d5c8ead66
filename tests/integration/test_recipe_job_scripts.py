"""The job scripts of recipes in plain bash, and the recipes that are shipped."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from fairseq_knn.recipe.composing import compose
from fairseq_knn.recipe.resolving import resolve
from tests import cli, no_slurm

SCRIPTS = no_slurm.SCRIPTS / "recipe"
STEPS = sorted(path.name for path in SCRIPTS.glob("[0-9]_*.sh"))
RECIPES = sorted((cli.ROOT / "configs" / "recipe").iterdir())

# Notes what it is called with, and leaves what training leaves.
PROGRAM = """#!/usr/bin/env bash
set -e
[[ $1 == path ]] && { echo user_dir; exit; }
printf '%q ' "$@" >>calls
echo >>calls
[[ $2 != train ]] || { mkdir -p 'a work/model' && touch 'a work/model/checkpoint_best.pt'; }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a program and settings."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "fairseq-knn").write_text(PROGRAM)
    (tmp_path / "programs" / "fairseq-knn").chmod(0o755)
    lines = ["WORK='a work'", "FILE='some pairs.zip'", "OPTIONS=(training.max_update=5)"]
    (tmp_path / "settings.sh").write_text("\n".join([(SCRIPTS / "settings.sh").read_text(), *lines]) + "\n")
    return tmp_path


def run(folder: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    environment = no_slurm.environment(
        PATH=f"{folder / 'programs'}:{no_slurm.programs()}", SETTINGS="settings.sh", **variables
    )
    return subprocess.run([SCRIPTS / script], env=environment, cwd=folder, capture_output=True, text=True)


def calls(folder: Path) -> list[list[str]]:
    return [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]


def test_all_steps(folder: Path) -> None:
    done = run(folder, "submit.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^--- (.*)$", done.stdout, re.MULTILINE) == STEPS
    shared = [
        *(str((cli.ROOT / "configs/recipe/tatoeba.yaml").resolve()), "pairs.file='some pairs.zip'"),
        *("training.max_update=5", "pairs.directory='a work/data'", "training.save_dir='a work/model'"),
    ]
    assert calls(folder) == [
        ["recipe", "test", *shared, "tokenizer", "valid_data", "test_data"],
        ["recipe", "train", *shared],
        ["recipe", "evaluate", *shared],
    ]
    again = run(folder, "2_train.sh")
    assert "finished already" in again.stdout
    assert len(calls(folder)) == 3


def test_another_recipe(folder: Path) -> None:
    (folder / "mine.yaml").touch()
    assert run(folder, "1_data.sh", RECIPE="mine.yaml").returncode == 0
    assert calls(folder)[0][2] == str(folder / "mine.yaml")
    recipe = compose([folder / "mine.yaml"], calls(folder)[0][3:-3])  # what bash has quoted, the recipe reads
    assert recipe.settings.pairs.file == "some pairs.zip"
    assert recipe.settings.training.save_dir == "a work/model"


def test_what_is_missing_is_named(folder: Path) -> None:
    for script, variables, told in (
        ("1_data.sh", {"RECIPE": "none.yaml"}, "1_data.sh: there is no recipe none.yaml, which RECIPE names"),
        ("3_evaluate.sh", {}, "3_evaluate.sh: a work/model is not trained to the end: run 2_train.sh first"),
    ):
        done = run(folder, script, **variables)
        assert (done.returncode, done.stderr) == (1, f"{told}\n")
    (folder / "settings.sh").write_text((SCRIPTS / "settings.sh").read_text())
    assert run(folder, "submit.sh").stderr.startswith("submit.sh: WORK is empty")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path: Path) -> None:
    """What has to be given is in the command at the head, and nothing else is missing."""
    recipe = compose([path], [])
    resolve(recipe)
    text = path.read_text()
    assert recipe.missing
    assert all(f"{name}=" in text for name in recipe.missing)
    given = compose([path], [f"{name}={os.devnull}" for name in recipe.missing])
    resolve(given)
    assert not given.missing


def test_every_script_is_there() -> None:
    assert {path.name for path in SCRIPTS.iterdir()} == {*STEPS, "submit.sh", "common.sh", "settings.sh"}
    for path in SCRIPTS.iterdir():
        assert bool(path.stat().st_mode & stat.S_IXUSR) == (path.name not in ("common.sh", "settings.sh")), path.name
        assert "CUDA_VISIBLE_DEVICES" not in path.read_text(), path.name
