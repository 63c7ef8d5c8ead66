"""The job scripts' surroundings: all programs but those of a Slurm that may be installed."""

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests import cli

SCRIPTS = cli.ROOT / "job_scripts"
_MINE = Path(sys.executable).parent
_SLURM = ("sbatch", "scontrol")


@cache
def programs(scripts: Path = _MINE) -> Path:
    """A folder for PATH with the programs of an environment and of this machine, without Slurm's.

    Args:
        scripts: where the environment's programs are; default: those of this one, of which another gets none.
    """
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for source in (scripts, *(path for path in map(Path, os.get_exec_path()) if path != _MINE)):
        for program in source.iterdir() if source.is_dir() else ():
            if program.name not in _SLURM and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program.absolute())
    return folder


def environment(**variables: object) -> dict[str, str]:
    """The environment of a script that is not in a job and finds no Slurm."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    mine = {"PATH": programs(), "OMP_NUM_THREADS": 1, **variables}
    return {**own, **{name: str(value) for name, value in mine.items()}}
