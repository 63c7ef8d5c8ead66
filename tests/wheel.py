"""The wheel in a clean environment: it brings all it needs, and the job scripts give there what they give here.

``python -m tests.wheel`` from the root of the repository. Takes some minutes, and up to 12 GB in the folder for
temporary files while pip works; nothing of it stays.
"""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from pathlib import Path

import fairseq_knn
from tests import cli, no_slurm, toy_workflow
from tests.toy_workflow import COMBINER, check, compare, result, say, submit

# Those that decide the last bits of what is computed.
_COMPUTE = ("faiss-gpu", "numpy", "torch")
# What a sub-command, or one of its own, is called in its parent's help.
_COMMAND = re.compile(r"^    ([a-z][a-z-]+)(?:\s|$)", re.MULTILINE)


def call(environment: dict[str, str], *command: object) -> str:
    """What a command prints."""
    words = list(map(str, command))
    done = subprocess.run(words, env=environment, cwd=environment["PLACE"], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-5000:]}")
    return done.stdout


def built(folder: Path) -> Path:
    """Build source archive and wheel, look into both, and give back the wheel."""
    command = (sys.executable, "-m", "build", "--outdir", folder, cli.ROOT)
    call({**os.environ, "PLACE": str(folder.parent)}, *command)
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    package = {str(path.relative_to(cli.ROOT)) for path in cli.PACKAGE.rglob("*") if path.suffix in (".py", ".typed")}
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
        (metadata,) = (content.read(name) for name in content.namelist() if name.endswith(".dist-info/METADATA"))
    check(
        names == package, f"{wheel.name} holds the package's {len(package)} files: {sorted(names ^ package) or 'all'}"
    )
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = package | {"LICENSE", "README.md", "CHANGELOG.md", "docs/jobs.md", "job_scripts/knn_mt/submit.sh"}
    check(wanted <= names, f"{archive.name} holds it, documentation and scripts: {sorted(wanted - names) or 'all'}")
    superfluous = sorted(name for name in names if re.match(r"tests|benchmarks|\.ci|.*(__pycache__|\.pyc$)", name))
    check(not superfluous, f"and no tests: {superfluous or 'none'}")
    message = message_from_bytes(metadata)
    relative = re.findall(r"\]\((?!https?://)[^)]*\)", message.get_payload())
    check(not relative, f"no link of its page is relative: {relative or 'none'}")
    return wheel


def installed(place: Path, wheel: Path) -> Path:
    """Install a wheel as README.md says, in a new environment; give back the folder of its programs."""
    environment = without_python({**os.environ, "PLACE": str(place)})
    call(environment, sys.executable, "-m", "venv", place / "environment")
    scripts = place / "environment" / "bin"
    say(f"{wheel.name} is being installed")
    # What pip compiled is not kept: against another torch, it is not for other environments.
    call(environment, scripts / "pip", "install", "--quiet", "--no-cache-dir", wheel)
    return scripts


def clean(place: Path, scripts: Path) -> dict[str, str]:
    """The environment of a program of the installed package: no other package of this machine is in its way."""
    path = no_slurm.programs(scripts)
    return without_python(toy_workflow.environment(place, place / "job_scripts" / "knn_mt", PATH=path))


def without_python(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what it tells Python, such as where there are more packages."""
    return {name: value for name, value in environment.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def helped(environment: dict[str, str], *command: str) -> Iterator[str]:
    """Every command below this one, its own first, after its ``--help`` has run."""
    text = call(environment, *command, "--help")
    yield " ".join(command)
    for name in _COMMAND.findall(text.partition("\ncommands:\n")[2]):
        yield from helped(environment, *command, name)


def starts(environment: dict[str, str], scripts: Path) -> None:
    """Check where the package is imported from, and that every command says what it is for."""
    path = Path(call(environment, "fairseq-knn", "path").strip())
    check(path.is_relative_to(scripts.parent), f"fairseq-knn path prints {path}")
    module = call(environment, scripts / "python", "-c", "import fairseq_knn; print(fairseq_knn.__file__)").strip()
    check(Path(module).parent == path, "the package is imported from there")
    version = call(environment, "fairseq-knn", "--version").strip()
    check(version == fairseq_knn.__version__, f"fairseq-knn --version prints {version}")
    commands = list(helped(environment, "fairseq-knn"))
    check(len(commands) > 10, f"--help of {', '.join(commands)}")


def works(environment: dict[str, str], scripts: Path, place: Path) -> None:
    """Run the job scripts with the installed package and with the checkout, and compare what is left."""
    versions = f"import importlib.metadata as m; print(*map(m.version, {_COMPUTE!r}))"
    theirs = call(environment, scripts / "python", "-c", versions).split()
    ours = [importlib.metadata.version(name) for name in _COMPUTE]
    say(", ".join(f"{name} {one}, here {other}" for name, one, other in zip(_COMPUTE, theirs, ours, strict=True)))
    work = place / "work"
    submit(environment)
    training = (work / "training" / COMBINER / "finished.txt").read_text()
    check(f"common.user_dir='{scripts.parent}/" in training, "the job scripts have run, with the installed package")
    work.rename(place / "of_the_wheel")  # the same paths again, as files name them
    submit(toy_workflow.environment(place))
    say("ok: the job scripts of the checkout have run")
    compare(result(place / "of_the_wheel"), result(work))


def prove(place: Path) -> None:
    """Run everything in a folder."""
    wheel = built(place / "dist")
    for name in ("job_scripts", "configs"):
        shutil.copytree(cli.ROOT / name, place / name)
    scripts = installed(place, wheel)
    say("ok: it is installed")
    environment = clean(place, scripts)
    starts(environment, scripts)
    works(environment, scripts, place)
    say("PASSED: the wheel gives what the checkout gives")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        # pip's own temporary files, too, which stay behind where it is killed.
        with tempfile.TemporaryDirectory(prefix="wheel-", ignore_cleanup_errors=True) as folder:
            os.environ["TMPDIR"] = tempfile.mkdtemp(dir=folder)
            prove(Path(folder))
    except AssertionError as failure:
        print(f"FAILED: {failure}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
