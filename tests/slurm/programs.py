"""The programs of Slurm and munge: installed on this machine, or Debian's packages unpacked into a folder.

Unpacked, nothing of the machine changes: no service starts, and no ``sbatch`` appears for scripts that look for one.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("munge", "slurm-wlm")
NEEDED = ("sbatch", "scontrol", "squeue", "scancel", "sinfo", "slurmctld", "slurmd", "munged")
_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # daemons; not everybody's PATH has them


class NotAvailable(Exception):
    """Slurm is not installed and cannot be fetched; says why in one line."""


@dataclass(frozen=True)
class Programs:
    """Where the programs are.

    Args:
        path: folders to look in, one after another.
        root: what the packages were unpacked into; None: they are installed.
    """

    path: tuple[str, ...]
    root: Path | None = None

    def find(self, name: str) -> str:
        """The file of a program; Debian's daemons have another name until its alternatives are set up."""
        for file in (name, f"{name}-wlm"):
            if found := shutil.which(file, path=os.pathsep.join(self.path)):
                return found
        raise NotAvailable(f"there is no {name} in {' or '.join(PACKAGES)}")

    def libraries(self) -> tuple[str, ...]:
        """Folders for LD_LIBRARY_PATH, those of Slurm's plug-ins last."""
        if self.root is None:
            return ()
        return tuple(
            str(folder)
            for pattern in ("usr/lib/*-linux-gnu*", "usr/lib/*/slurm-wlm")
            for folder in self.root.glob(pattern)
        )


def find(folder: Path) -> Programs:
    """Look for Slurm on this machine, or fetch it into a folder.

    Raises:
        NotAvailable: it is not there and the packages cannot be fetched.
    """
    installed = Programs((*os.get_exec_path(), *_SYSTEM))
    try:
        for name in NEEDED:
            installed.find(name)
    except NotAvailable:
        return _fetch(folder)
    return installed


def _fetch(folder: Path) -> Programs:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NotAvailable(f"Slurm is not installed, and there is no {tool} to fetch it with")
    archives, lists, root = folder / "archives", folder / "lists", folder / "root"
    for made in (archives / "partial", lists / "partial", root):
        made.mkdir(parents=True)
    download = (
        "install",
        "--download-only",
        "--yes",
        "--no-install-recommends",
        "-o",
        f"Dir::Cache::archives={archives}",
    )
    try:
        _apt(*download, *PACKAGES)
    except NotAvailable as first:  # the machine's lists of packages may be missing, or too old
        own = ("-o", f"Dir::State::lists={lists}")
        try:
            _apt("update", *own)
            _apt(*download, *own, *PACKAGES)
        except NotAvailable:
            raise first from None
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, root], check=True)
    return Programs((f"{root}/usr/bin", f"{root}/usr/sbin", *os.get_exec_path(), *_SYSTEM), root)


def _apt(*arguments: str) -> None:
    command = ["apt-get", "-qq", *arguments, "-o", "Debug::NoLocking=true", "-o", "Acquire::Retries=1"]
    for scheme in ("http", "https"):
        command += ["-o", f"Acquire::{scheme}::Timeout=30"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise NotAvailable(
            f"Slurm is not installed, and apt-get cannot fetch it: {(errors or [done.stderr.strip()])[0]}"
        )
