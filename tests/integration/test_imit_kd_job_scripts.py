"""The job scripts of speech translation in plain bash: from manifests to a table, and how they are submitted."""

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
from omegaconf import OmegaConf

from tests import cli, speech_recipe, warm

SCRIPTS = cli.ROOT / "job_scripts" / "imit_kd"
STEPS = sorted(path.name for path in SCRIPTS.glob("[0-9]_*.sh"))
VARIANTS = ("nll", "kd", "kd-transcripts", "imit_kd", "imit_kd_CE", "imit_kd_CE-transcripts")
UPDATES = 2
TRAINING = (*speech_recipe.TINY, f"optimization.max_update={UPDATES}")
CASCADE_STUDENT = "imit_pipeline_nmt_training"
TRAINED = ("nll-translations", "imit_kd_CE-generated", CASCADE_STUDENT)


def settings(path: Path, **values: object) -> Path:
    """The settings file that is shipped, with other values at its end."""
    lines = [f"{name}={value}" for name, value in values.items()]
    path.write_text("\n".join([(SCRIPTS / "settings.sh").read_text(), *lines]) + "\n")
    return path


def variables_of(file: Path, variables: Mapping[str, object]) -> dict[str, str]:
    """The environment of a script: without Slurm, unless the folder of programs beside the settings has it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    path = f"{file.parent / 'programs'}:{cli.scripts()}:{os.environ['PATH']}"
    mine = {"PATH": path, "SETTINGS": file.name, "OMP_NUM_THREADS": 1, **variables}
    return {**own, **{name: str(value) for name, value in mine.items()}}


def run(file: Path, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run a script."""
    environment = variables_of(file, variables)
    return subprocess.run([SCRIPTS / script], env=environment, cwd=file.parent, capture_output=True, text=True)


def program(folder: Path, name: str, text: str) -> None:
    """Put a program of our own into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def paths(folder: Path) -> dict[str, object]:
    """Settings without which nothing runs."""
    expert = folder / "expert"
    return {
        "SPEECH": folder / "corpus",
        "EXPERT": expert / "trained" / "checkpoint_last.pt",
        "DICTIONARIES": expert,
        "CODES": expert / "bpecodes",
        "WORK": f"{folder}/$CORPUS",
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """The whole chain: a settings file and how submit.sh ended."""
    folder = tmp_path_factory.mktemp("imit kd")
    speech_recipe.write_corpus(folder / "corpus")
    speech_recipe.write_expert(folder / "expert")
    file = settings(
        folder / "settings.sh",
        **{name: f'"{path}"' for name, path in paths(folder).items()},
        VARIANTS=f"({' '.join(TRAINED)})",
        TRAIN_PARTS=2,
        DECODE_MAX_TOKENS=500,
        TEXT_MAX_TOKENS=100,
        TRAIN_OPTIONS=f"({' '.join(TRAINING)})",
        ASR_OPTIONS=f"({' '.join(TRAINING)})",
        CASCADE_OPTIONS=f"({' '.join(option for option in TRAINING if 'conv' not in option)})",
        MODEL_OPTIONS="(--num-workers 0 --cpu --max-len-a 0 --max-len-b 8 --min-len 2)",
    )
    with file.open("a") as end:  # sacremoses takes its time
        print("detokenise() { sed -E 's/@@( |$)//g'; }", file=end)

    with warm.programs(folder / "programs"):
        done = run(file, "submit.sh")
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
        yield file, done


def work(file: Path) -> Path:
    return file.parent / "mustc_en_de"


def rows(manifest: Path) -> list[dict[str, str]]:
    head, *lines = manifest.read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_the_table(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, done = scored
    assert re.findall(r"^--- (.*)$", done.stdout, re.MULTILINE) == STEPS
    head, *lines, empty, signature = (work(file) / "scores.txt").read_text().splitlines()
    assert head.split() == ["system", "dev", "tst-COMMON"]
    assert [line.split()[0] for line in lines] == ["expert", "cascade", *TRAINED]
    assert all(0 <= float(value) <= 100 for line in lines for value in line.split()[1:])
    assert empty == ""
    assert "version:" in signature
    assert done.stdout.endswith((work(file) / "scores.txt").read_text())
    for path in work(file).glob("translations/*/*.txt"):
        assert len(path.read_text().splitlines()) == speech_recipe.SIZES[path.stem]
        assert "@@" not in path.read_text()
    assert len(list(work(file).glob("translations/*/*.txt"))) == 2 * (2 + len(TRAINED))
    assert [path.name for path in work(file).rglob("*.partial*")] == []


def test_the_data(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Rows are found by their ids, texts are the expert's pieces, references are as they were."""
    folder = work(scored[0]) / "data"
    text = {row["id"]: row["tgt_text"] for row in rows(scored[0].parent / "corpus" / "train_st.tsv")}
    spoken = {row["id"]: row["tgt_text"] for row in rows(scored[0].parent / "corpus" / "train_asr.tsv")}
    train = rows(folder / "train.tsv")
    assert [row["id"] for row in train] == [id_ for id_ in text if id_ in spoken]
    assert len(train) == speech_recipe.SIZES["train"] - 1
    for row in train:
        assert row["tgt_text"] == speech_recipe.pieces(text[row["id"]])
        assert row["src_text"] == speech_recipe.pieces(spoken[row["id"]])
    test = rows(scored[0].parent / "corpus" / "tst-COMMON_st.tsv")
    assert (folder / "plain" / "tst-COMMON.tgt_text").read_text().splitlines() == [row["tgt_text"] for row in test]


def test_training_sets_with_generated_texts(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, _ = scored
    gold, transcripts, translations, generated = (
        {row["id"]: row for row in rows(work(file) / "data" / f"train{text}.tsv")}
        for text in ("", "_transcripts", "_translations", "_generated")
    )
    assert list(gold) == list(transcripts) == list(translations) == list(generated)

    def hypotheses(system: str, kind: str) -> dict[int, str]:
        parts = [path.read_text() for path in sorted((work(file) / "generated" / system).glob("train.part-?"))]
        assert len(parts) == 2
        return {int(n): t for part in parts for n, t in re.findall(rf"(?m)^{kind}-(\d+)\t\S+\t(.*)$", part)}

    heard, from_gold, from_heard = hypotheses("asr", "D"), hypotheses("expert", "H"), hypotheses("cascade", "H")
    for number, id_ in enumerate(gold):
        assert transcripts[id_]["src_text"] == generated[id_]["src_text"] == speech_recipe.pieces(heard[number])
        assert transcripts[id_]["tgt_text"] == gold[id_]["tgt_text"]
        assert translations[id_]["src_text"] == gold[id_]["src_text"]
        assert translations[id_]["tgt_text"] == from_gold[number]
        assert generated[id_]["tgt_text"] == from_heard[number]
    both = rows(work(file) / "data" / "train_cascade.tsv")
    for row in both:
        assert row == {**gold[row["id"]], "asr_text": transcripts[row["id"]]["src_text"]}
    for variant, subset in zip(TRAINED, ("train_translations", "train_generated", "train_cascade"), strict=True):
        config = OmegaConf.load(work(file) / "training" / variant / ".hydra" / "config.yaml")
        assert config.dataset.train_subset == subset


def test_what_is_done_is_skipped(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    file, _ = scored
    again = run(file, "submit.sh")
    assert (again.returncode, again.stderr) == (0, "")
    # Data; transcripts and translations of three sets, of the last in two parts; what is made of them; students' ones.
    assert again.stdout.count("there already") == 1 + 4 + 3 + 2 * 4 + 2 + 2 * len(TRAINED)
    assert again.stdout.count("finished already") == 1 + len(TRAINED)
    assert "generating" not in again.stdout
    # Tasks of an array share parts, variants and sets.
    task = {"SLURM_ARRAY_TASK_ID": 1, "SLURM_ARRAY_TASK_COUNT": 2}
    assert re.findall(r"asr/(\S+) ", run(file, "3_transcribe.sh", **task).stdout) == [
        "tst-COMMON.part-0",
        "train.part-1",
    ]
    assert re.findall(r"training/(\S+) ", run(file, "7_train.sh", **task).stdout) == ["imit_kd_CE-generated"]
    translated = re.findall(r"generated/(\S+)/(\S+)\.part", run(file, "8_decode.sh", **task).stdout)
    assert translated == [(variant, "tst-COMMON") for variant in TRAINED]


def settings_of(file: Path, folder: Path, *lines: str) -> Path:
    """The same settings and more, for a copy of what is there."""
    shutil.copytree(work(file), folder / "mustc_en_de")
    (folder / "programs").symlink_to(file.parent / "programs")
    path = folder / "settings.sh"
    path.write_text("\n".join([file.read_text(), f"WORK={folder}/mustc_en_de", *lines]) + "\n")
    return path


def test_what_is_incomplete_is_not_used(scored: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    copy = settings_of(scored[0], tmp_path)
    generated = tmp_path / "mustc_en_de" / "generated"
    part = generated / "cascade" / "tst-COMMON.part-0"
    part.write_text(re.sub(r"(?m)^H-5\t.*\n", "", part.read_text()))
    assert_one_sentence(run(copy, "9_score.sh"), r"what cascade made of tst-COMMON is not that of the 7 sentences")
    (generated / "expert" / "dev.part-0").unlink()
    assert_one_sentence(run(copy, "9_score.sh"), r"there is no .*expert/dev.part-0: run 5_translate.sh first")
    part = generated / "asr" / "train.part-1"
    part.write_text(part.read_text().replace("--beam 5", "--beam 6", 1))
    assert_one_sentence(
        run(copy, "4_transcripts.sh"), r"made by another command than part 0: run 3_transcribe.sh again"
    )


def test_utterances_in_which_nothing_is_heard(
    scored: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The expert cannot be asked about them: they are left out of the training set, not of the others."""
    copy = settings_of(scored[0], tmp_path, "CASCADE=no", "VARIANTS=(kd-transcripts)")
    folder = tmp_path / "mustc_en_de"
    for part in (folder / "generated" / "asr").glob("train.part-?"):
        part.write_text(re.sub(r"(?m)^D-7\t(\S+)\t.*$", r"D-7\t\1\t", part.read_text()))
    done = run(copy, "4_transcripts.sh")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 utterances without a transcript" in done.stderr
    ids = [row["id"] for row in rows(folder / "data" / "train.tsv")]
    assert [row["id"] for row in rows(folder / "data" / "train_transcripts.tsv")] == ids[:7] + ids[8:]
    assert len((folder / "transcripts" / "train.en").read_text().splitlines()) == len(ids)


def test_how_jobs_are_submitted(tmp_path: Path) -> None:
    program(tmp_path / "programs", "sbatch", f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\nwc -l <{tmp_path}/calls\n')

    def submitted(**values: object) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        file = settings(tmp_path / "settings.sh", **paths(tmp_path), **values)
        done = run(file, "submit.sh", CORPUS="covost2_en_de")
        assert done.returncode == 0, done.stderr
        calls = (tmp_path / "calls").read_text().splitlines()
        for number, call in enumerate(calls):
            assert (f"--dependency=afterok:{number} " in call) == (number > 0)
        return calls

    calls = submitted(TRAIN_JOBS="(--gres=gpu:1)", GENERATE_TASKS=3, DECODE_TASKS=5)
    assert [Path(call.split()[-1]).name for call in calls] == STEPS
    arrays = {"3_transcribe.sh": "0-2", "5_translate.sh": "0-2", "7_train.sh": "0-5", "8_decode.sh": "0-4"}
    for step, call in zip(STEPS, calls, strict=True):
        assert re.findall(r"--array=(\S+)", call) == ([arrays[step]] if step in arrays else [])
        assert ("--gres=gpu:1" in call) == (step in ("2_asr.sh", "7_train.sh"))
    both = submitted(ASR_MODEL="asr.pt", CASCADE="no", VARIANTS=f"({CASCADE_STUDENT})")
    assert [Path(call.split()[-1]).name for call in both] == [
        *("1_data.sh", "3_transcribe.sh", "4_transcripts.sh", "7_train.sh", "8_decode.sh", "9_score.sh")
    ]
    alone = submitted(ASR_MODEL="asr.pt", CASCADE="no", VARIANTS="(nll kd)")
    assert [Path(call.split()[-1]).name for call in alone] == ["1_data.sh", "7_train.sh", "8_decode.sh", "9_score.sh"]


def assert_one_sentence(done: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(pattern, done.stderr), done.stderr


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    file = settings(tmp_path / "settings.sh")
    for script in [*STEPS, "submit.sh"]:
        assert_one_sentence(run(file, script), f"^{script}: WORK is empty")
    file = settings(tmp_path / "settings.sh", WORK=tmp_path / "work")
    missing = {"4_transcripts.sh": "DICTIONARIES", "5_translate.sh": "EXPERT"}
    for script in ("1_data.sh", "2_asr.sh", "3_transcribe.sh", "4_transcripts.sh", "5_translate.sh", "submit.sh"):
        assert_one_sentence(run(file, script), f"^{script}: {missing.get(script, 'SPEECH')} is empty")
    assert_one_sentence(run(file, "7_train.sh"), "training/asr is not trained to the end: run 2_asr.sh first$")
    assert_one_sentence(run(file, "8_decode.sh"), "training/nll is not trained to the end: run 7_train.sh first$")
    assert_one_sentence(run(file, "9_score.sh"), "there is no .*expert/dev.part-0: run 5_translate.sh first$")
    assert_one_sentence(run(file, "7_train.sh", CORPUS="mine"), "TESTS is empty")
    given = paths(tmp_path)
    file = settings(tmp_path / "settings.sh", **given, ASR_MODEL="nothing.pt", VARIANTS="(imit_kd_ast)")
    assert_one_sentence(run(file, "submit.sh"), "SPEECH_EXPERT is empty")
    assert_one_sentence(run(file, "7_train.sh"), "SPEECH_EXPERT is empty")
    assert_one_sentence(run(file, "2_asr.sh"), "nothing is to be trained: there is an ASR_MODEL in")
    file = settings(tmp_path / "settings.sh", **given, ASR_MODEL="nothing.pt")
    assert_one_sentence(run(file, "7_train.sh"), "there is no ASR_MODEL nothing.pt$")
    file = settings(tmp_path / "settings.sh", **given, VARIANTS=f"({CASCADE_STUDENT}-transcripts)")
    assert_one_sentence(run(file, "submit.sh"), "learns from both transcripts already: write it alone in")
    file = settings(tmp_path / "settings.sh", **given, VARIANTS="(kd-gold)")
    assert_one_sentence(
        run(file, "submit.sh"), "kd-gold is trained on 'gold', but must be on transcripts, translations or"
    )


def test_settings_and_configurations_agree() -> None:
    folder = cli.ROOT / "configs" / "imit_kd"
    show = f'source "{SCRIPTS}/settings.sh"; echo "train$ASR $ASR_CONFIG ${{VARIANTS[*]}}"'
    for corpus in ("mustc_en_de", "covost2_en_de"):
        environment = {**os.environ, "CORPUS": corpus}
        done = subprocess.run(["bash", "-c", show], env=environment, capture_output=True, text=True, check=True)
        train, config, *variants = done.stdout.split()
        named = OmegaConf.load(folder / "corpus" / f"{corpus}.yaml")
        assert (train, config) == (named.dataset.train_subset, named.task.config_yaml)
        assert variants == list(VARIANTS)
    methods = {path.stem for path in (folder / "method").iterdir()}
    assert {variant.partition("-")[0] for variant in VARIANTS} | {"imit_kd_ast"} == methods


def test_pieces_become_text() -> None:
    """With the program that settings name."""
    done = subprocess.run(
        ["bash", "-c", f'source "{SCRIPTS}/settings.sh"; detokenise'],
        input="Nicht wa@@ hr , er sag@@ te : &quot; ja &quot; ?\n\nund das@@\n",
        env={**os.environ, "PATH": f"{cli.scripts()}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'Nicht wahr, er sagte: "ja"?\n\nund das\n'


@pytest.mark.parametrize(("script", "variables"), [("7_train.sh", {"ASR_MODEL": "asr.pt"}), ("2_asr.sh", {})])
def test_what_is_out_of_time_queues_itself_again(script: str, variables: dict[str, object], tmp_path: Path) -> None:
    """A task of the array, alone; what it has trained already is not in the way."""
    slurm = tmp_path / "programs"
    program(slurm, "scontrol", f'#!/bin/sh\necho "$*" >{tmp_path}/scontrol.txt\n')
    trained = "mkdir -p work/training/nll; touch work/training/nll/checkpoint_best.pt"
    waits = "touch started\nexec sleep 60\n"
    program(slurm, "fairseq-hydra-train", f"#!/bin/sh\ncase $* in *=nll*) {trained}; exit ;; esac\n{waits}")
    (tmp_path / "asr.pt").touch()
    given = {**paths(tmp_path), "WORK": "work", "VARIANTS": "(nll kd imit_kd)", **variables}
    file = settings(tmp_path / "settings.sh", **given)
    task = {"SLURM_JOB_ID": 8, "SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": 0, "SLURM_ARRAY_TASK_COUNT": 1}
    with subprocess.Popen(
        [SCRIPTS / script], env=variables_of(file, task), cwd=tmp_path, stdout=subprocess.PIPE
    ) as running:
        while not (tmp_path / "started").exists() and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGUSR1)
        output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert b"back into the queue" in output
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7_0\n"
    assert [path.parent.name for path in tmp_path.rglob("finished.txt")] == (["nll"] if variables else [])


def test_every_script_is_run() -> None:
    """By the chain above, which goes through submit.sh; the other files are only read."""
    assert {path.name for path in SCRIPTS.iterdir()} == {*STEPS, "submit.sh", "common.sh", "settings.sh"}
    for path in SCRIPTS.iterdir():
        assert bool(path.stat().st_mode & stat.S_IXUSR) == (path.name not in ("common.sh", "settings.sh")), path.name
        assert "CUDA_VISIBLE_DEVICES" not in path.read_text(), path.name
