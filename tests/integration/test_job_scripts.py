"""The job scripts in plain bash, with and without the variables and commands of Slurm."""

import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import cli, no_slurm, toy

SCRIPTS = no_slurm.SCRIPTS / "knn_mt"
STEPS = sorted(path.name for path in SCRIPTS.glob("[0-9]_*.sh"))
SENTENCES = 40  # of the test split: two batches of at most 300 tokens
OPTIONS = "(--num-workers 0 --knn-shard-sentences 100)"  # three shards
UPDATES = 30  # of a combiner, eight sentences each
TRAINING = (
    "(common.cpu=true dataset.num_workers=0 dataset.batch_size=8 optimization.lr=[0.01] "
    f"optimization.max_update={UPDATES})"
)

# What sbatch, Slurm and a node do with a job or an array, at once: a copy of the script elsewhere, the variables, tasks
# side by side whose numbers do not begin with 0. It notes how it was called.
SBATCH = r"""#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"$SPOOL/calls"
number=$(wc -l <"$SPOOL/calls")
for argument; do
    case $argument in
    --array=0-*) last=${argument#--array=0-} ;;
    esac
done
cp "${@: -1}" "$SPOOL/job$number"
export SLURM_JOB_ID=$number SLURM_JOB_NAME=job SLURM_SUBMIT_DIR=$PWD
if [[ -z ${last:-} ]]; then
    bash "$SPOOL/job$number" >>"$SPOOL/log" 2>&1
else
    export SLURM_ARRAY_JOB_ID=$number SLURM_ARRAY_TASK_COUNT=$((last + 1)) SLURM_ARRAY_TASK_MIN=5
    tasks=()
    for ((task = 5; task <= last + 5; task++)); do
        SLURM_ARRAY_TASK_ID=$task bash "$SPOOL/job$number" >>"$SPOOL/log" 2>&1 &
        tasks+=($!)
    done
    for task in "${tasks[@]}"; do wait "$task"; done
fi
echo "$number;toy"
"""


@pytest.fixture(scope="module")
def programs() -> Path:
    """All programs of this machine and environment but those of a Slurm that may be installed."""
    return no_slurm.programs()


def command(folder: Path, name: str, text: str) -> None:
    """Put a program of our own into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def settings(path: Path, **values: object) -> Path:
    """The settings file that is shipped, filled in; other values are changed in place."""
    text = (SCRIPTS / "settings.sh").read_text()
    for name, value in values.items():
        text, replaced = re.subn(rf"^{name}=\S*( |$)", rf"{name}={value}\1", text, flags=re.MULTILINE)
        assert replaced == 1, name
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Jobs:
    """Runs scripts with a settings file."""

    settings: Path
    path: str

    def run(self, script: str, **variables: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPTS / script)],
            env=self.environment(variables),
            cwd=self.settings.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, variables: Mapping[str, object]) -> dict[str, str]:
        return no_slurm.environment(**{"PATH": self.path, "SETTINGS": self.settings.name, "DOMAIN": "it", **variables})


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little of the toy domain as text."""
    from fairseq.data import Dictionary

    folder = tmp_path_factory.mktemp("text")
    for language in ("de", "en"):
        shutil.copy(toy.DOMAIN / f"dict.{language}.txt", folder)
        dictionary = Dictionary.load(str(folder / f"dict.{language}.txt"))
        for split, sentences in (("train", 300), ("valid", 30), ("test", SENTENCES)):
            lines = [dictionary.string(sentence) for sentence in toy.read_side(toy.DOMAIN, split, language)]
            (folder / f"{split}.{language}").write_text("\n".join(lines[:sentences]) + "\n")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, programs: Path, text: Path) -> Jobs:
    """The whole chain without Slurm: from text to scores, with tuning."""
    folder = tmp_path_factory.mktemp("plain")
    file = settings(
        folder / "settings.sh",
        BASE=toy.BASE,
        DATA=folder / "data",
        REFERENCE=text / "test.en",
        WORK=f"{folder}/$DOMAIN",
        TEXT=text,
        DICTIONARIES=text,
        TUNE="yes",
        INDEX_TASKS=2,  # one process: one part
        DECODE_MAX_TOKENS=300,
        MODEL_OPTIONS=OPTIONS,
        TRAIN_OPTIONS=TRAINING,
    )
    jobs = Jobs(file, str(programs))
    done = jobs.run("submit.sh")
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps(done) == [step for step in STEPS if step != "5_train.sh"]
    return jobs


def steps(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What submit.sh ran."""
    return re.findall(r"^--- (.*)$", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def combined(plain: Jobs) -> subprocess.CompletedProcess[str]:
    """The same chain again with a combiner that is trained."""
    done = plain.run("submit.sh", COMBINER="adaptive")
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory, plain: Jobs, programs: Path, text: Path) -> Jobs:
    """The chain through sbatch, from binarised data to scores, with the values that were tuned before."""
    folder = tmp_path_factory.mktemp("array")
    k, weight, temperature = (plain.settings.parent / "it" / "tuned.txt").read_text().split()[1::2]
    file = settings(
        folder / "mine.sh",
        INDEX_TASKS=2,
        BASE=toy.BASE,
        DATA=plain.settings.parent / "data",
        REFERENCE=text / "test.en",
        WORK=f"{folder}/$DOMAIN",
        DECODE_MAX_TOKENS=300,
        MODEL_OPTIONS=OPTIONS,
        BUILD_TASKS=2,
        DECODE_TASKS=2,
        EVERY_JOB="(--partition=toy)",
    )
    with file.open("a") as end:
        print(f"K={k} LAMBDA={weight} TEMPERATURE={temperature}", file=end)
    command(folder / "slurm", "sbatch", SBATCH)
    jobs = Jobs(file, f"{folder / 'slurm'}:{programs}")
    done = jobs.run("submit.sh", SPOOL=folder / "slurm")
    assert done.returncode == 0, done.stderr + (folder / "slurm" / "log").read_text()[-3000:]
    return jobs


def assert_scores(work: Path, file: str, system: str) -> None:
    scores = (work / file).read_text().splitlines()
    assert [line.split("|")[0].split() for line in scores] == [
        [one, metric] for one in ("base", system) for metric in ("BLEU", "chrF2")
    ]
    assert all("version:" in line for line in scores)
    bleu = [float(re.search(r" = ([\d.]+)", line)[1]) for line in scores]
    assert bleu[2] > bleu[0] + 10  # the datastore helps
    assert len((work / f"{system}.txt").read_text().splitlines()) == SENTENCES


def test_scores(plain: Jobs) -> None:
    assert_scores(plain.settings.parent / "it", "scores.txt", "knn")


def test_a_trained_combiner(plain: Jobs, combined: subprocess.CompletedProcess[str]) -> None:
    """What does not depend on the combiner is not done again, and the scores stand beside those of vanilla."""
    assert steps(combined) == [step for step in STEPS if step != "5_tune.sh"]
    for told in ("finished already", "base/part-0.txt is there already", "adaptive/part-0.txt"):
        assert told in combined.stdout
    work = plain.settings.parent / "it"
    assert_scores(work, "scores.adaptive.txt", "adaptive")
    command = (work / "adaptive" / "part-0.txt").read_text().partition("\n")[0]
    assert f"--path {work}/training/adaptive/checkpoint_best.pt" in command
    assert str(work / "datastore") not in command
    assert [path.name for path in work.rglob("*.partial*")] == []


def test_training_goes_on_where_it_was(plain: Jobs, combined: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    done = plain.run("5_train.sh", COMBINER="adaptive")
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished already" in done.stdout

    shutil.copytree(plain.settings.parent / "it", tmp_path / "it")
    trained = tmp_path / "it" / "training" / "adaptive"
    more = Jobs(settings_of(plain, tmp_path), plain.path)
    more.settings.write_text(more.settings.read_text().replace(f"max_update={UPDATES}", f"max_update={UPDATES + 5}"))
    assert_one_sentence(more.run("5_train.sh", COMBINER="adaptive"), r"was trained by another command .*: delete it")
    (trained / "finished.txt").unlink()  # as in a training that was interrupted
    assert_one_sentence(more.run("6_decode.sh", COMBINER="adaptive"), r"not trained to the end: run 5_train.sh first$")
    done = more.run("5_train.sh", COMBINER="adaptive")
    assert done.returncode == 0, done.stderr[-3000:]
    log = (trained / "hydra_train.log").read_text()
    resumed = log[log.rindex("Loaded checkpoint") :]  # the first time: the base
    assert f"@ {UPDATES} updates" in resumed
    assert f"num_updates: {UPDATES + 5} >= max_update" in resumed
    assert "retrieving for" not in resumed
    assert (trained / "finished.txt").exists()


def test_an_array_gives_what_one_process_gives(plain: Jobs, array: Jobs) -> None:
    one, other = plain.settings.parent / "it", array.settings.parent / "it"
    stores = [toy.content(folder / "datastore") for folder in (one, other)]
    for files in stores:
        del files["index.json"]  # says with which k its recall was measured, and one k was not known yet
    assert stores[0] == stores[1]
    for name in ("base.txt", "knn.txt", "scores.txt"):
        assert (other / name).read_text() == (one / name).read_text()
    parts = [set(re.findall(r"(?m)^D-(\d+)", (other / "knn" / f"part-{rank}.txt").read_text())) for rank in range(2)]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_how_jobs_are_submitted(array: Jobs) -> None:
    calls = (array.settings.parent / "slurm" / "calls").read_text().splitlines()
    scripts = [Path(call.split()[-1]).name for call in calls]
    index = ["4_centroids.sh", "4_fill.sh", "4_index.sh"]
    assert scripts == ["2_build.sh", "3_merge.sh", *index, "6_decode.sh", "7_score.sh"]
    for number, call in enumerate(calls):
        assert "--parsable" in call
        assert "--partition=toy" in call
        assert ("--array=" in call) == (scripts[number] in ("2_build.sh", "4_fill.sh", "6_decode.sh"))
        assert (f"--dependency=afterok:{number} " in call) == (number > 0)  # without ';toy'
        assert f"/logs/%x-{'%A_%a' if '--array=' in call else '%j'}.log" in call


def test_how_training_is_submitted(programs: Path, tmp_path: Path) -> None:
    command(tmp_path / "slurm", "sbatch", f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\nwc -l <{tmp_path}/calls\n')
    values = {"BASE": toy.BASE, "DATA": toy.DOMAIN, "REFERENCE": "test.en", "WORK": tmp_path / "work"}
    file = settings(tmp_path / "settings.sh", **values, TRAIN_JOB="(--gres=gpu:4)")
    jobs = Jobs(file, f"{tmp_path / 'slurm'}:{programs}")
    assert jobs.run("submit.sh", COMBINER="robust", DOMAIN="koran").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    scripts = ["2_build.sh", "3_merge.sh", "4_index.sh", "5_train.sh", "6_decode.sh", "7_score.sh"]
    assert [Path(call.split()[-1]).name for call in calls] == scripts
    for number, call in enumerate(calls):
        assert (f"--dependency=afterok:{number} " in call) == (number > 0)
        assert ("--gres=gpu:4" in call) == (scripts[number] == "5_train.sh")


def test_what_is_done_is_skipped(plain: Jobs) -> None:
    for script, told in (("1_binarise.sh", "there already"), ("2_build.sh", "finished already")):
        done = plain.run(script)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout
    done = plain.run("6_decode.sh")
    assert done.stdout.count("there already") == 2
    assert done.returncode == 0


def test_incomplete_translations_are_not_scored(plain: Jobs, tmp_path: Path) -> None:
    shutil.copytree(plain.settings.parent / "it", tmp_path / "it")
    copy = Jobs(settings_of(plain, tmp_path), plain.path)
    part = tmp_path / "it" / "knn" / "part-0.txt"
    whole = part.read_text()
    part.write_text(re.sub(r"(?m)^D-7\t.*\n", "", whole))
    assert_one_sentence(copy.run("7_score.sh"), rf"are not those of the {SENTENCES} sentences")
    part.write_text(whole.replace("--distributed-world-size 1", "--distributed-world-size 2", 1))
    assert_one_sentence(copy.run("7_score.sh"), r"part-1.txt, one of 2, is missing")
    part.unlink()
    assert_one_sentence(copy.run("7_score.sh"), r"run 6_decode.sh first")


def settings_of(jobs: Jobs, folder: Path) -> Path:
    """The same settings for a copy of the working directory."""
    copy = folder / "settings.sh"
    copy.write_text(jobs.settings.read_text().replace(f"{jobs.settings.parent}/$DOMAIN", f"{folder}/$DOMAIN"))
    return copy


def assert_one_sentence(done: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(pattern, done.stderr), done.stderr


@pytest.mark.parametrize("script", [*STEPS, "submit.sh"])
def test_missing_settings(script: str, programs: Path, tmp_path: Path) -> None:
    empty = Jobs(settings(tmp_path / "settings.sh"), str(programs))
    assert_one_sentence(empty.run(script), rf"^{script}: WORK is empty: fill it in in .*settings\.sh$")
    index = dict.fromkeys(("4_centroids.sh", "4_fill.sh", "4_index.sh"))
    missing = {"3_merge.sh": None, **index, "7_score.sh": "REFERENCE", "1_binarise.sh": "DATA"}.get(script, "BASE")
    if missing is not None:
        some = Jobs(settings(tmp_path / "some.sh", WORK=tmp_path / "work"), str(programs))
        assert_one_sentence(some.run(script), f"^{script}: {missing} is empty")


def test_arrays_with_gaps(programs: Path, tmp_path: Path) -> None:
    """They would leave ranks out."""
    jobs = Jobs(settings(tmp_path / "settings.sh", WORK=tmp_path), str(programs))
    variables = {"SLURM_ARRAY_TASK_ID": 9, "SLURM_ARRAY_TASK_MIN": 1, "SLURM_ARRAY_TASK_COUNT": 2}
    assert_one_sentence(jobs.run("2_build.sh", **variables), "the numbers of the array tasks have gaps")


def test_no_such_settings_file(programs: Path, tmp_path: Path) -> None:
    assert_one_sentence(Jobs(tmp_path / "none.sh", str(programs)).run("submit.sh"), "there is no settings file none.sh")


def test_unknown_domains_need_values(programs: Path, tmp_path: Path) -> None:
    values = {"WORK": tmp_path, "BASE": toy.BASE, "DATA": toy.DOMAIN, "REFERENCE": "test.en"}
    jobs = Jobs(settings(tmp_path / "settings.sh", **values), str(programs))
    assert_one_sentence(jobs.run("6_decode.sh", DOMAIN="patents"), "K is empty")
    for script in ("submit.sh", "5_train.sh"):
        assert_one_sentence(jobs.run(script, DOMAIN="patents", COMBINER="adaptive"), "TRAIN_K is empty")


def test_combiners_that_cannot_be_trained(programs: Path, tmp_path: Path) -> None:
    jobs = Jobs(settings(tmp_path / "settings.sh", WORK=tmp_path, BASE=toy.BASE, DATA=toy.DOMAIN), str(programs))
    assert_one_sentence(jobs.run("5_train.sh"), "vanilla combiner has nothing to train")
    assert_one_sentence(jobs.run("5_train.sh", COMBINER="kster"), "COMBINER is 'kster', but must be vanilla, adaptive,")


def test_published_values(tmp_path: Path) -> None:
    published = {}
    for domain in ("it", "medical", "law", "koran", "subtitles"):
        show = f"DOMAIN={domain}; source {SCRIPTS / 'settings.sh'}; echo $K $LAMBDA $TEMPERATURE"
        published[domain] = subprocess.check_output(["bash", "-c", show], text=True).strip()
    assert published == {
        "it": "8 0.7 10",
        "medical": "4 0.8 10",
        "law": "4 0.8 10",
        "koran": "16 0.8 100",
        "subtitles": "16 0.5 20",
    }


def test_published_values_of_combiners(tmp_path: Path) -> None:
    published = {}
    for combiner in ("adaptive", "kernel_smoothed", "robust"):
        for domain in ("it", "medical", "law", "koran"):
            show = f"COMBINER={combiner} DOMAIN={domain}; source {SCRIPTS / 'settings.sh'}; echo $TRAIN_K $NOISE_BETA"
            published[combiner, domain] = subprocess.check_output(["bash", "-c", show], text=True).strip()
    assert [published["adaptive", domain] for domain in ("it", "medical", "law", "koran")] == ["8", "16", "8", "16"]
    assert {published["kernel_smoothed", domain] for domain in ("it", "medical", "law", "koran")} == {"16"}
    assert [published["robust", domain] for domain in ("it", "medical", "law")] == ["8 1000"] * 3
    assert published["robust", "koran"] == "8 10"


ONE_OF_AN_ARRAY = {"SLURM_ARRAY_JOB_ID": 7, "SLURM_ARRAY_TASK_ID": 1, "SLURM_ARRAY_TASK_COUNT": 2}


@pytest.mark.parametrize(
    ("script", "program", "variables", "job"),
    [
        ("2_build.sh", "fairseq-generate", ONE_OF_AN_ARRAY, "7_1"),
        ("2_build.sh", "fairseq-generate", {}, "7"),
        ("5_train.sh", "fairseq-hydra-train", {"COMBINER": "robust"}, "7"),
    ],
)
def test_what_is_out_of_time_queues_itself_again(
    script: str, program: str, variables: dict[str, object], job: str, programs: Path, tmp_path: Path
) -> None:
    slurm = tmp_path / "slurm"
    command(slurm, "scontrol", f'#!/bin/sh\necho "$*" >{slurm}/scontrol.txt\n')
    command(slurm, program, f"#!/bin/sh\ntouch {slurm}/started\nexec sleep 60\n")
    file = settings(tmp_path / "settings.sh", WORK=tmp_path / "it", BASE=toy.BASE, DATA=toy.DOMAIN)
    jobs = Jobs(file, f"{slurm}:{programs}")
    environment = jobs.environment({"SLURM_JOB_ID": 7, **variables})
    with subprocess.Popen([SCRIPTS / script], env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        while not (slurm / "started").exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGUSR1)
        output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert not (tmp_path / "it" / "training" / "robust" / "finished.txt").exists()
    assert (slurm / "scontrol.txt").read_text() == f"requeue {job}\n"
    assert b"back into the queue" in output


def test_a_signal_before_there_is_a_process(programs: Path, tmp_path: Path) -> None:
    """As where the time limit is hardly longer than what Slurm tells of it in advance."""
    slurm = tmp_path / "slurm"
    command(slurm, "scontrol", f'#!/bin/sh\necho "$*" >{slurm}/scontrol.txt\n')
    command(slurm, "fairseq-knn", f"#!/bin/sh\ntouch {slurm}/started\nsleep 0.5\n")
    command(slurm, "fairseq-generate", f"#!/bin/sh\ntouch {slurm}/computed\n")
    file = settings(tmp_path / "settings.sh", WORK=tmp_path / "it", BASE=toy.BASE, DATA=toy.DOMAIN)
    jobs = Jobs(file, f"{slurm}:{programs}")
    environment = jobs.environment({"SLURM_JOB_ID": 7})
    with subprocess.Popen([SCRIPTS / "2_build.sh"], env=environment, cwd=tmp_path) as running:
        while not (slurm / "started").exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGUSR1)
    assert running.returncode == 0
    assert (slurm / "scontrol.txt").read_text() == "requeue 7\n"
    assert not (slurm / "computed").exists()


def test_every_script_is_run() -> None:
    """By the chains above, which go through submit.sh; the other files are only read."""
    assert {path.name for path in SCRIPTS.iterdir()} == {*STEPS, "submit.sh", "common.sh", "settings.sh"}
    for path in SCRIPTS.iterdir():
        runs = path.name not in ("common.sh", "settings.sh")
        assert bool(path.stat().st_mode & stat.S_IXUSR) == runs, path.name
        assert (cli.ROOT / "job_scripts" / path.parent.name).is_dir()


def test_no_paths_hosts_or_devices() -> None:
    for path in SCRIPTS.iterdir():
        script = path.read_text()
        assert not re.search(r"(?<![\w.$})\"*])/(?!usr/bin/env|dev/null)\w+/", script), path.name
        assert "CUDA_VISIBLE_DEVICES" not in script, path.name
