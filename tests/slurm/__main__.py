"""The job scripts under a real Slurm, of one node: what comes out is what plain bash gives, byte for byte.

``python -m tests.slurm`` from the root of the repository. An array task is killed and the workflow submitted again, a
task is requeued while it runs, and one comes to its time limit. Without Slurm, and without a way to fetch it, the one
line ``SKIPPED: ...`` says why.
"""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import no_slurm, toy_workflow
from tests.slurm import cluster as slurm
from tests.slurm import programs
from tests.slurm.cluster import Cluster, wait_for
from tests.toy_workflow import check, compare, result, say, submit

HERE = Path(__file__).parent
STEPS = (
    *("2_build.sh", "3_merge.sh", "4_centroids.sh", "4_fill.sh", "4_index.sh"),
    *("5_train.sh", "6_decode.sh", "7_score.sh"),
)
ARRAYS = ("2_build.sh", "4_fill.sh", "6_decode.sh")
TASKS = 2  # of each array


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
    tasks = {step: [f"{second[step]}_{task}" for task in range(TASKS)] for step in ARRAYS}
    ends(cluster, *tasks["2_build.sh"])
    check(goes_on(cluster, work, f"{build}_1")[0] < whole, "and it kept what the killed task had written")
    for step in STEPS[1:]:
        ends(cluster, *tasks.get(step, [second[step]]))
        say(f"ok: {step} is completed")
    names = [f"knn_mt_{name}-{second[step]}.log" for name, step in (("merge", "3_merge.sh"), ("score", "7_score.sh"))]
    names += [f"knn_mt_decode-{task}.log" for task in tasks["6_decode.sh"]]
    check(all((work / "logs" / name).exists() for name in names), f"logs are called {', '.join(names)}")


def prove(place: Path) -> None:
    """Run everything in a folder.

    Raises:
        NotAvailable: there is no Slurm.
    """
    found = programs.find(place / "packages")
    plain = toy_workflow.environment(place, CLUSTER=HERE / "cluster.sh")
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
