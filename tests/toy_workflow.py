"""The workflow of ``job_scripts/knn_mt`` on the toy domain: for proofs that run it in two ways and compare."""

import subprocess
import time
from pathlib import Path

from tests import no_slurm, toy

SETTINGS = Path(__file__).with_suffix(".sh")
SCRIPTS = no_slurm.SCRIPTS / "knn_mt"
COMBINER = "adaptive"
_BEGIN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGIN:5.1f} s] {text}", flush=True)


def check(true: object, text: str) -> None:
    if not true:
        raise AssertionError(text)
    say(f"ok: {text}")


def environment(place: Path, scripts: Path = SCRIPTS, **variables: object) -> dict[str, str]:
    """The environment of submit.sh, which finds no Slurm in it.

    Args:
        place: the folder ``work`` is made in.
        scripts: the folder of submit.sh.
        variables: more of them.
    """
    mine = {"TOY": toy.TOY, "PLACE": place, "COMBINER": COMBINER, "JOB_SCRIPTS": scripts, "SETTINGS": SETTINGS}
    return no_slurm.environment(**mine, **variables)


def submit(environment: dict[str, str], *arguments: str) -> str:
    """What submit.sh prints."""
    command = [str(Path(environment["JOB_SCRIPTS"]) / "submit.sh"), *arguments]
    done = subprocess.run(
        command,
        env=environment,
        cwd=environment["PLACE"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise AssertionError(f"submit.sh ended with {done.returncode}:\n{done.stdout[-5000:]}")
    return done.stdout


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
