"""The job scripts of language models in plain bash: from text to a table, again, and what is missing."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import cli, no_slurm, toy

SCRIPTS = no_slurm.SCRIPTS / "knn_lm"
STEPS = sorted(path.name for path in SCRIPTS.glob("[0-9]_*.sh"))
SYSTEMS = ("base", "knn", "retomaton-1", "retomaton-kmeans-1")


def settings(path: Path, **values: object) -> Path:
    """The settings file that is shipped, with other values at its end."""
    lines = [f"{name}={value}" for name, value in values.items()]
    path.write_text("\n".join([(SCRIPTS / "settings.sh").read_text(), *lines]) + "\n")
    return path


def run(file: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a script without Slurm."""
    environment = no_slurm.environment(SETTINGS=file.name, **variables)
    return subprocess.run([SCRIPTS / script], env=environment, cwd=file.parent, capture_output=True, text=True)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The whole chain: a settings file and how submit.sh ended."""
    from fairseq.data import Dictionary

    folder = tmp_path_factory.mktemp("lm")
    dictionary = Dictionary.load(str(toy.DOMAIN / "dict.en.txt"))
    for split, sentences in (("train", 300), ("valid", 40), ("test", 40)):
        lines = [dictionary.string(sentence) for sentence in toy.read_side(toy.DOMAIN, split, "en")[:sentences]]
        (folder / split).write_text("\n".join(lines) + "\n")
    common = {
        "DATA": folder / "data",
        "TEXT": folder,
        "FILES": "(train valid test)",
        "DICTIONARY": toy.DOMAIN / "dict.en.txt",
        "WORK": folder / "work",
        "BASE": folder / "model" / "checkpoint_last.pt",
    }
    file = settings(
        folder / "settings.sh",
        **common,
        **{"BUILD_BLOCK": 64, "BUILD_CONTEXT": 16, "BLOCK": 64, "CONTEXT": 32, "BUILD_MAX_TOKENS": 512},
        **{"K": 16, "CLUSTERS": 20, "MAX_KNNS": 16, "MIN_KNNS": "(1)", "MAX_TOKENS": 512, "TEMPERATURE": 30},
        INDEX_TASKS=2,
        MODEL_OPTIONS="(--num-workers 0)",
    )
    assert run(file, "1_binarise.sh").returncode == 0
    trained = cli.call(
        "fairseq-train",
        *(folder / "data", "--task", "language_modeling", "--arch", "transformer_lm", "--cpu"),
        *("--save-dir", folder / "model", "--decoder-layers", 2, "--decoder-attention-heads", 2),
        *("--decoder-embed-dim", 32, "--decoder-input-dim", 32, "--decoder-output-dim", 32),
        *("--decoder-ffn-embed-dim", 64, "--tokens-per-sample", 96, "--max-tokens", 960, "--max-update", 30),
        *("--optimizer", "adam", "--lr", 0.01, "--no-epoch-checkpoints", "--disable-validation", "--num-workers", 0),
    )
    assert trained.status == 0, trained.log[-2000:]
    done = run(file, "submit.sh")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return file, done


def test_the_table(evaluated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, done = evaluated
    assert re.findall(r"^--- (.*)$", done.stdout, re.MULTILINE) == STEPS
    lines = (file.parent / "work" / "valid.txt").read_text().splitlines()[1:]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert tuple(rows) == SYSTEMS
    perplexity = {system: float(row[0]) for system, row in rows.items()}
    saved = {system: row[1] for system, row in rows.items()}
    assert all(float(row[2]) > 0 for row in rows.values())
    assert len(set(perplexity.values())) == len(SYSTEMS)
    assert saved["base"] == saved["knn"] == "-"
    assert float(saved["retomaton-1"]) > 0
    assert float(saved["retomaton-kmeans-1"]) >= float(saved["retomaton-1"])
    assert list((file.parent / "work").rglob("*.partial")) == []


def test_what_is_done_is_skipped(evaluated: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, _ = evaluated
    for script, told in (("1_binarise.sh", "there already"), ("2_build.sh", "finished already")):
        again = run(file, script)
        assert (again.returncode, again.stderr) == (0, "")
        assert told in again.stdout
    again = run(file, "6_evaluate.sh")
    assert again.stdout.count("there already") == len(SYSTEMS)
    # Tasks of an array share the systems.
    task = run(file, "6_evaluate.sh", SLURM_ARRAY_TASK_ID=1, SLURM_ARRAY_TASK_COUNT=2)
    assert task.stdout.count("there already") == len(SYSTEMS) // 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = settings(tmp_path / "settings.sh")
    for script in [*STEPS, "submit.sh"]:
        done = run(file, script)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith(f"{script}: WORK is empty")
    file = settings(tmp_path / "settings.sh", WORK=tmp_path / "work")
    for script, told in (("2_build.sh", "BASE is empty"), ("7_table.sh", "base.txt: run 6_evaluate.sh first")):
        assert told in run(file, script).stderr
    file = settings(tmp_path / "other.sh", WORK=tmp_path, BASE="lm.pt", DATA="data")
    assert "BUILD_BREAK is empty" in run(file, "2_build.sh", DATASET="patents").stderr


def test_published_settings(tmp_path: Path) -> None:
    """The authors' table of lambda, and where clusters help."""
    for dataset, expected in (
        ("wikitext103", "0.25 1000000 complete 2560"),
        ("law", "0.9 200000 eos 0"),
        ("law_finetuned", "0.25  eos 0"),
    ):
        command = f'. "{SCRIPTS / "settings.sh"}"; echo "$LAMBDA $CLUSTERS $BREAK $CONTEXT"'
        environment = {**os.environ, "DATASET": dataset}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
