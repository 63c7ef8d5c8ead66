"""The job scripts under a real Slurm, of one node: what comes out is what plain bash gives, byte for byte.

``python -m tests.slurm`` from the root of the repository. An array task is killed and the workflow submitted again, a
task is requeued while it runs, and one comes to its time limit. Without Slurm, and without a way to fetch it, the one
line ``SKIPPED: ...`` says why.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import no_slurm, toy
from tests.slurm import cluster as slurm
from tests.slurm import programs
from tests.slurm.cluster import Cluster, wait_for

HERE = Path(__file__).parent
SCRIPTS = no_slurm.SCRIPTS / "knn_mt"
STEPS = ("2_build.sh", "3_merge.sh", "4_index.sh", "5_train.sh", "6_decode.sh", "7_score.sh")
COMBINER = "adaptive"
TASKS = 2  # of both arrays
_BEGIN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)


def check(true: object, text: str) -> None:
    if not true:
        raise AssertionError(text)
    say(f"ok: {text}")


def submit(environment: dict[str, str], *arguments: str) -> str:
    """What submit.sh prints."""
    command = [str(SCRIPTS / "submit.sh"), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise AssertionError(f"submit.sh ended with {done.returncode}:\n{done.stdout[-5000:]}")
    return done.stdout


def submitted(environment: dict[str, str]) -> dict[str, str]:
    """Submit the workflow: the number of every step's job."""
    lines = (line.split(": job ", 1) for line in submit(environment).splitlines())
    numbers = dict(lines)
    check(tuple(numbers) == STEPS, f"submit.sh submitted {', '.join(f'{step} ({numbers[step]})' for step in numbers)}")
    return numbers


def shards(work: Path, task: int) -> int:
    """Shards that a task of the building array has finished."""
    numbers = (int(path.stem.removeprefix("commit-")) for path in work.glob("datastore/shards/commit-*.json"))
    return sum(number % TASKS == task for number in numbers)


def stop_in_the_middle(cluster: Cluster, work: Path, job: str, task: int) -> int:
    """Wait until a task of the building array has written another shard; stop its process there and give it back."""
    before = shards(work, task)
    mine = (
        f"SLURM_CONF={cluster.environment['SLURM_CONF']}",
        f"SLURM_ARRAY_JOB_ID={job}",
        f"SLURM_ARRAY_TASK_ID={task}",
    )

    def process() -> int:
        found = slurm.processes(*mine)
        return next((pid for pid, line in found.items() if "fairseq-generate" in line), 0)

    pid = wait_for(f"task {job}_{task} computes", process)
    wait_for(f"task {job}_{task} writes a shard", lambda: shards(work, task) > before, every=0.02)
    os.kill(pid, signal.SIGSTOP)
    done = shards(work, task)
    check(
        cluster.jobs()[f"{job}_{task}"].state == "RUNNING", f"task {job}_{task} runs and has {done - before} new shards"
    )
    return pid


def left_to_write(work: Path, task: str) -> list[int]:
    """How many shards a task of the building array found to be written, at each of its starts: from its log."""
    log = (work / "logs" / f"knn_mt_build-{task}.log").read_text()
    return [int(number) for number in re.findall(r"(\d+) of \d+ shards to write", log)]


def goes_on(cluster: Cluster, work: Path, task: str) -> list[int]:
    """Check that a task was started twice, and that the second start kept what the first one had written."""
    left = left_to_write(work, task)
    kept = len(left) == 2 and left[1] < left[0]
    check(
        cluster.restarts(task) == 1 and kept, f"task {task} was started again and is completed; shards to write: {left}"
    )
    return left


def creep(pid: int, happened: Callable[[], object]) -> None:
    """Let a stopped process go on for moments, in which it can take a signal, until something has happened."""

    def moment() -> object:
        try:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.005)
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            pass
        return happened()

    wait_for("the time limit strikes", moment, every=1)


def ends(cluster: Cluster, *numbers: str) -> None:
    """Wait until jobs and tasks are completed."""

    def done() -> bool:
        states = cluster.jobs()
        for number in numbers:
            if states[number].state not in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED"):
                raise AssertionError(f"job {number} is {states[number]}")
        return all(states[number].state == "COMPLETED" for number in numbers)

    wait_for(f"jobs {', '.join(numbers)} are completed", done)


def workflow(cluster: Cluster, environment: dict[str, str], work: Path) -> None:
    """Submit the workflow, twice, and disturb it."""
    first = submitted(environment)
    build = first["2_build.sh"]
    pids = [stop_in_the_middle(cluster, work, build, task) for task in range(TASKS)]
    os.kill(pids[1], signal.SIGKILL)  # as where memory is out
    wait_for("the killed task fails", lambda: cluster.jobs()[f"{build}_1"].state == "FAILED")
    say(f"ok: task {build}_1, whose process was killed, FAILED")
    cluster.call("scontrol", "requeue", f"{build}_0")
    say(f"task {build}_0 is requeued while it runs")
    ends(cluster, f"{build}_0")
    whole = goes_on(cluster, work, f"{build}_0")[0]
    later = [first[step] for step in STEPS[1:]]
    waiting = [number for number in cluster.jobs() if number.partition("_")[0] in later]
    wait_for("jobs that wait are cancelled", lambda: {cluster.jobs()[job].state for job in waiting} == {"CANCELLED"})
    say(f"ok: what waited for task {build}_1 was cancelled by Slurm: jobs {', '.join(waiting)}")
    check(not (work / "datastore" / "manifest.json").exists(), "the datastore is not finished")

    second = submitted(environment)
    build = second["2_build.sh"]
    pid = stop_in_the_middle(cluster, work, build, 1)
    cluster.call("scontrol", "update", f"JobId={build}_1", "TimeLimit=2")
    say(f"task {build}_1 has a time limit of 2 minutes, and asks for USR1 2 minutes before it")
    creep(pid, lambda: cluster.jobs()[f"{build}_1"].state != "RUNNING")
    log = work / "logs" / f"knn_mt_build-{build}_1.log"
    wait_for("the task says so", lambda: f"job {build}_1 goes back into the queue" in log.read_text())
    cluster.call("scontrol", "update", f"JobId={build}_1", "TimeLimit=60")
    say(f"ok: task {build}_1 got USR1 and put itself back into the queue, with {shards(work, 1)} shards")
    tasks = [f"{second[step]}_{task}" for step in ("2_build.sh", "6_decode.sh") for task in range(TASKS)]
    ends(cluster, *tasks[:TASKS])
    check(goes_on(cluster, work, f"{build}_1")[0] < whole, "and it kept what the killed task had written")
    for step in ("3_merge.sh", "4_index.sh", "5_train.sh", "6_decode.sh", "7_score.sh"):
        ends(cluster, *([second[step]] if step != "6_decode.sh" else tasks[TASKS:]))
        say(f"ok: {step} is completed")
    names = [f"knn_mt_{name}-{second[step]}.log" for name, step in (("merge", "3_merge.sh"), ("score", "7_score.sh"))]
    names += [f"knn_mt_decode-{task}.log" for task in tasks[TASKS:]]
    check(all((work / "logs" / name).exists() for name in names), f"logs are called {', '.join(names)}")


def result(work: Path) -> dict[str, bytes]:
    """All that a workflow has left that does not depend on the number of tasks."""
    files = {f"datastore/{name}": content for name, content in toy.content(work / "datastore").items()}
    trained = work / "training" / COMBINER / "combiner_best"
    files |= {f"combiner_best/{name}": content for name, content in toy.content(trained).items()}
    for name in ("base.txt", f"{COMBINER}.txt", f"scores.{COMBINER}.txt"):
        files[name] = (work / name).read_bytes()
    for system in ("base", COMBINER):
        parts = [path.read_text().splitlines() for path in (work / system).glob("part-*.txt")]
        lines = sorted(line for part in parts for line in part if line[:2] in ("S-", "T-", "H-", "D-", "P-"))
        files[f"{system}: hypotheses and their scores"] = "\n".join(lines).encode()
    return files


def compare(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Compare the results of two workflows."""
    check(one.keys() == other.keys(), f"both left the same {len(one)} files")
    different = [name for name in one if one[name] != other[name]]
    check(
        not different,
        f"all are equal, byte for byte, {sum(map(len, one.values())):,} bytes: {different or 'no difference'}",
    )
    for name in sorted(one):
        if not name.startswith("datastore/shards/"):
            print(f"    {name}: {len(one[name]):,} bytes")
    print(one[f"scores.{COMBINER}.txt"].decode().rstrip())


def prove(place: Path) -> None:
    """Run everything in a folder.

    Raises:
        NotAvailable: there is no Slurm.
    """
    found = programs.find(place / "packages")
    variables = {"JOB_SCRIPTS": SCRIPTS, "SETTINGS": HERE / "settings.sh", "CLUSTER": HERE / "cluster.sh"}
    plain = no_slurm.environment(TOY=toy.TOY, PLACE=place, COMBINER=COMBINER, **variables)
    say(f"Slurm is {'installed' if found.root is None else 'unpacked from its packages'}")
    work = place / "work"
    submit(plain)
    work.rename(place / "plain")  # the same paths again, as files name them
    say("ok: the workflow has run in plain bash")
    with slurm.running(found, place / "slurm", {**plain, "PATH": str(no_slurm.programs())}) as cluster:
        version = cluster.call("sbatch", "--version").strip()
        say(f"ok: {version} runs, one node, {slurm.CPUS} CPUs")
        try:
            environment = {**cluster.environment, "PATH": f"{no_slurm.programs()}:{cluster.environment['PATH']}"}
            workflow(cluster, environment, work)
        except BaseException:
            for log in sorted((work / "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-1500:]}")
            print(cluster.logs(), cluster.jobs(), sep="\n", flush=True)
            raise
    left = slurm.processes(f"SLURM_CONF={cluster.environment['SLURM_CONF']}")
    check(not left, "Slurm is stopped, and nothing of it is left")
    compare(result(place / "plain"), result(work))
    say("PASSED: plain bash and Slurm give the same")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
            prove(Path(folder))
    except programs.NotAvailable as reason:
        print(f"SKIPPED: {reason}")
    except (AssertionError, slurm.NotRunning, slurm.Timeout) as failure:
        print(f"FAILED: {failure}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
