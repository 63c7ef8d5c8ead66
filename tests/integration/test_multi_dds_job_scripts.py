"""The job scripts of language sampling in plain bash: from text to a table, again, and how they are submitted."""

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests import cli, no_slurm, warm

SCRIPTS = no_slurm.SCRIPTS / "multi_dds"
STEPS = sorted(path.name for path in SCRIPTS.glob("[0-9]_*.sh"))
VARIANTS = ("proportional", "temperature", "uniform", "multidds", "multidds_s")
LANGUAGES = {"aa": 60, "bb": 20}  # training sentences
UPDATES = 4
SENTENCES = 9  # of a test set

TRAINING = (
    *("common.cpu=true", "dataset.num_workers=0", "dataset.max_tokens=120", f"optimization.max_update={UPDATES}"),
    *("optimization.lr=[0.01]", "task.max_source_positions=12", "task.max_target_positions=12"),
    *(f"+model.{side}_layers=1" for side in ("encoder", "decoder")),
    *(f"+model.{side}_embed_dim=32" for side in ("encoder", "decoder")),
    *(f"+model.{side}_ffn_embed_dim=64" for side in ("encoder", "decoder")),
    *(f"+model.{side}_attention_heads=2" for side in ("encoder", "decoder")),
)


def settings(path: Path, **values: object) -> Path:
    """The settings file that is shipped, with other values at its end."""
    lines = [f"{name}={value}" for name, value in values.items()]
    path.write_text("\n".join([(SCRIPTS / "settings.sh").read_text(), *lines]) + "\n")
    return path


def variables_of(file: Path, variables: Mapping[str, object]) -> dict[str, str]:
    """The environment of a script: without Slurm, unless the folder of programs beside the settings has it."""
    return no_slurm.environment(
        PATH=f"{file.parent / 'programs'}:{no_slurm.programs()}", SETTINGS=file.name, **variables
    )


def run(file: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a script."""
    environment = variables_of(file, variables)
    return subprocess.run([SCRIPTS / script], env=environment, cwd=file.parent, capture_output=True, text=True)


def program(folder: Path, name: str, text: str) -> None:
    """Put a program of our own into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def write_text(folder: Path) -> None:
    """A few sentences of two languages, in pieces, and the test sets as plain text beside them."""
    generator = torch.Generator().manual_seed(1)
    for language, size in LANGUAGES.items():
        pair = folder / "text" / f"{language}-eng"
        pair.mkdir(parents=True)
        plain = folder / "plain" / f"{language}-eng"
        plain.mkdir(parents=True)
        for split, count in (("train", size), ("valid", 6), ("test", SENTENCES)):
            lengths = torch.randint(2, 6, (count,), generator=generator).tolist()
            if split == "test":
                lengths[3] = 14  # longer than training takes
            words = [torch.randint(0, 9, (length,), generator=generator).tolist() for length in lengths]
            for side in (language, "eng"):
                lines = [" ".join(f"▁{side} {word}" for word in sentence) for sentence in words]
                (pair / f"{split}.{side}").write_text("\n".join(lines) + "\n")
                lines = [" ".join(f"{side}{word}" for word in sentence) for sentence in words]
                (plain / f"{split}.{side}").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def scored(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """The whole chain: a settings file and how submit.sh ended."""
    folder = tmp_path_factory.mktemp("dds")
    write_text(folder)
    file = settings(
        folder / "settings.sh",
        DATA=folder / "data",
        TEXT=folder / "text",
        REFERENCES=folder / "plain",
        WORK=f"{folder}/$DIRECTION",
        LANGUAGES=f"({' '.join(LANGUAGES)})",
        VARIANTS="(proportional multidds_s)",
        TRAIN_OPTIONS=f"({' '.join(TRAINING)})",
        MODEL_OPTIONS="(--num-workers 0 --cpu --max-len-b 10)",
    )
    with warm.programs(folder / "programs"):
        done = run(file, "submit.sh")
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        yield file, done


def test_the_table(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, done = scored
    assert re.findall(r"^--- (.*)$", done.stdout, re.MULTILINE) == STEPS
    work = file.parent / "m2o"
    head, *rows, empty, signature = (work / "scores.txt").read_text().splitlines()
    assert head.split() == ["sampling", "aa", "bb", "mean"]
    assert [row.split()[0] for row in rows] == ["proportional", "multidds_s"]
    for row in rows:
        first, second, mean = map(float, row.split()[1:])
        assert mean == pytest.approx((first + second) / 2, abs=0.011)
    assert empty == ""
    assert "version:" in signature
    assert done.stdout.endswith((work / "scores.txt").read_text())
    for path in work.glob("translations/*/*.txt"):
        assert len(path.read_text().splitlines()) == SENTENCES  # the long one, too
    assert len(list(work.glob("translations/*/*.txt"))) == 4
    assert list(file.parent.rglob("*.partial")) == []
    log = (work / "training" / "multidds_s" / "hydra_train.log").read_text()
    assert "drawn with the probabilities aa-eng 0.7500, bb-eng 0.2500" in log


def test_one_dictionary_for_a_side(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    data = scored[0].parent / "data"
    assert (data / "dict.aa.txt").read_bytes() == (data / "dict.bb.txt").read_bytes()
    pieces = {line.split()[0] for line in (data / "dict.aa.txt").read_text().splitlines()}
    assert {"▁aa", "▁bb", "0", "8"} <= pieces
    assert "▁eng" not in pieces
    assert not (data / "joint").exists()


def test_what_is_done_is_skipped(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, _ = scored
    again = run(file, "submit.sh")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.count("there already") == 1 + 4
    assert again.stdout.count("finished already") == 2
    assert again.stdout.endswith((file.parent / "m2o" / "scores.txt").read_text())
    # Tasks of an array share variants and test sets.
    task = {"SLURM_ARRAY_TASK_ID": 1, "SLURM_ARRAY_TASK_COUNT": 2}
    assert re.findall(r"training/(\w+)", run(file, "2_train.sh", **task).stdout) == ["multidds_s"]
    translated = re.findall(r"translations/(\w+)/(\w+)", run(file, "3_translate.sh", **task).stdout)
    assert translated == [("proportional", "bb"), ("multidds_s", "bb")]


def test_the_other_direction(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """With the same data; a training goes on where it was."""
    file, _ = scored
    one = settings_with(file, "VARIANTS=(multidds)", f"TRAIN_OPTIONS+=(optimization.max_update={UPDATES - 2})")
    assert run(one, "2_train.sh", DIRECTION="o2m").returncode == 0
    other = settings_with(file, "VARIANTS=(multidds)")
    refused = run(other, "2_train.sh", DIRECTION="o2m")
    assert_one_sentence(refused, r"was trained by another command .*: delete it")
    (file.parent / "o2m" / "training" / "multidds" / "finished.txt").unlink()
    assert_one_sentence(run(other, "3_translate.sh", DIRECTION="o2m"), r"not trained to the end: run 2_train.sh first$")
    done = run(other, "submit.sh", DIRECTION="o2m")
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    log = (file.parent / "o2m" / "training" / "multidds" / "hydra_train.log").read_text()
    assert re.search(rf"Loaded checkpoint .*@ {UPDATES - 2} updates", log)
    assert f"num_updates: {UPDATES} >= max_update" in log
    generated = (file.parent / "o2m" / "translations" / "multidds" / "bb.generated").read_text()
    assert "--encoder-langtok tgt" in generated.partition("\n")[0]
    assert "S-0\t__bb__ eng" in generated
    assert len((file.parent / "o2m" / "scores.txt").read_text().splitlines()) == 4


def settings_with(file: Path, *lines: str) -> Path:
    """More settings in a file of its own, beside the other."""
    path = file.with_name("other.sh")
    path.write_text("\n".join([file.read_text(), *lines]) + "\n")
    return path


def test_incomplete_translations_are_not_scored(
    scored: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    file, _ = scored
    shutil.copytree(file.parent / "m2o", tmp_path / "m2o")
    copy = tmp_path / "settings.sh"
    copy.write_text(file.read_text() + f"\nWORK={tmp_path}/m2o\n")
    part = tmp_path / "m2o" / "translations" / "proportional" / "aa.generated"
    part.write_text(re.sub(r"(?m)^D-7\t.*\n", "", part.read_text()))
    assert_one_sentence(run(copy, "4_score.sh"), rf"are not those of the {SENTENCES} sentences")
    part.unlink()
    assert_one_sentence(run(copy, "4_score.sh"), "aa.generated: run 3_translate.sh first")


def test_how_jobs_are_submitted(tmp_path: Path) -> None:
    program(tmp_path / "programs", "sbatch", f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\nwc -l <{tmp_path}/calls\n')
    paths = {name: tmp_path / name.lower() for name in ("DATA", "TEXT", "REFERENCES", "WORK")}
    file = settings(tmp_path / "settings.sh", **paths, TRAIN_JOBS="(--gres=gpu:1)", TRANSLATE_TASKS=3)
    assert run(file, "submit.sh", GROUP="diverse").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [Path(call.split()[-1]).name for call in calls] == STEPS
    for number, call in enumerate(calls):
        assert (f"--dependency=afterok:{number} " in call) == (number > 0)
        assert ("--gres=gpu:1" in call) == (STEPS[number] == "2_train.sh")
    arrays = {"2_train.sh": f"0-{len(VARIANTS) - 1}", "3_translate.sh": "0-2"}
    assert [re.findall(r"--array=(\S+)", call) for call in calls] == [
        [arrays[step]] if step in arrays else [] for step in STEPS
    ]


def assert_one_sentence(done: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(pattern, done.stderr), done.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = settings(tmp_path / "settings.sh")
    for script in [*STEPS, "submit.sh"]:
        assert_one_sentence(run(file, script), f"^{script}: WORK is empty")
    file = settings(tmp_path / "settings.sh", WORK=tmp_path / "work")
    missing = {"4_score.sh": "REFERENCES"}
    for script in [*STEPS, "submit.sh"]:
        assert_one_sentence(run(file, script), f"^{script}: {missing.get(script, 'DATA')} is empty")
    assert_one_sentence(run(file, "2_train.sh", GROUP="mine"), "LANGUAGES is empty")
    assert_one_sentence(run(file, "2_train.sh", DIRECTION="m2m"), "DIRECTION is 'm2m', but must be m2o or o2m")


def test_settings_and_configurations_agree(tmp_path: Path) -> None:
    """Variants and languages are those of configs/multi_dds."""
    folder = cli.ROOT / "configs" / "multi_dds"
    settings(tmp_path / "settings.sh", WORK=tmp_path)
    show = f'here={SCRIPTS}; source "$here/common.sh"; echo "$PAIRS ${{TAG:-none}} ${{VARIANTS[*]}}"'
    for group in ("related", "diverse"):
        for direction in ("m2o", "o2m"):
            variables = {"GROUP": group, "DIRECTION": direction, "SETTINGS": str(tmp_path / "settings.sh")}
            environment = {**os.environ, "PATH": f"{cli.scripts()}:{os.environ['PATH']}", **variables}
            done = subprocess.run(["bash", "-c", show], env=environment, capture_output=True, text=True, check=True)
            pairs, tag, *variants = done.stdout.split()
            languages = OmegaConf.load(folder / "languages" / f"{group}_{direction}.yaml")
            assert (pairs, tag) == (languages.lang_pairs, languages.get("encoder_langtok", "none"))
            assert variants == list(VARIANTS)
    assert sorted(path.stem for path in (folder / "sampling").iterdir()) == sorted(VARIANTS)


def test_what_is_out_of_time_queues_itself_again(tmp_path: Path) -> None:
    """A task of the array, alone; what it has trained already is not in the way."""
    slurm = tmp_path / "programs"
    program(slurm, "scontrol", f'#!/bin/sh\necho "$*" >{tmp_path}/scontrol.txt\n')
    trained = "mkdir -p training/proportional; touch training/proportional/checkpoint_best.pt"
    program(
        slurm,
        "fairseq-hydra-train",
        f"#!/bin/sh\ncase $* in *proportional*) {trained}; exit ;; esac\ntouch started\nexec sleep 60\n",
    )
    file = settings(tmp_path / "settings.sh", WORK=tmp_path, DATA="data", VARIANTS="(proportional uniform multidds)")
    task = {"SLURM_JOB_ID": 8, "SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": 0, "SLURM_ARRAY_TASK_COUNT": 1}
    with subprocess.Popen(
        [SCRIPTS / "2_train.sh"], env=variables_of(file, task), cwd=tmp_path, stdout=subprocess.PIPE
    ) as running:
        while not (tmp_path / "started").exists() and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGUSR1)
        output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert b"back into the queue" in output
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7_0\n"
    assert [path.parent.name for path in tmp_path.rglob("finished.txt")] == ["proportional"]


def test_every_script_is_run() -> None:
    """By the chain above, which goes through submit.sh; the other files are only read."""
    assert {path.name for path in SCRIPTS.iterdir()} == {*STEPS, "submit.sh", "common.sh", "settings.sh"}
    for path in SCRIPTS.iterdir():
        assert bool(path.stat().st_mode & stat.S_IXUSR) == (path.name not in ("common.sh", "settings.sh")), path.name
        assert "CUDA_VISIBLE_DEVICES" not in path.read_text(), path.name
