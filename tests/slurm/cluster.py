"""A Slurm of one node on this machine, which belongs to a folder and ends with the block it is made for."""

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.slurm.programs import Programs

T = TypeVar("T")
CPUS = 2
# A job that is requeued waits as long as a credential lives, 120 s by default.
CREDENTIAL_SECONDS = 8
_CONFIGURATION = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={credential}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
# The state of jobs that ended is looked up.
MinJobAge=3600
KillWait=5
# The machine may have another number of CPUs.
SlurmdParameters=config_overrides
NodeName=toy NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=toy Nodes=toy Default=YES MaxTime=INFINITE State=UP
"""


class NotRunning(Exception):
    """A daemon has ended."""


class Timeout(Exception):
    """Something did not happen in time."""


def wait_for(what: str, happened: Callable[[], T], seconds: float = 600, every: float = 0.5) -> T:
    """Ask again until there is an answer that counts as true, and give it back."""
    end = time.monotonic() + seconds
    while not (answer := happened()):
        if time.monotonic() > end:
            raise Timeout(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return answer


@dataclass(frozen=True)
class Job:
    """One job, or one task of an array, as Slurm sees it."""

    state: str
    reason: str


@dataclass(frozen=True)
class Cluster:
    """A Slurm that runs.

    Args:
        programs: its programs.
        folder: its configuration, state and logs.
        environment: for all that talks to it.
    """

    programs: Programs
    folder: Path
    environment: Mapping[str, str]

    def call(self, name: str, *arguments: object) -> str:
        """What a program of Slurm prints."""
        command = [self.programs.find(name), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def jobs(self) -> dict[str, Job]:
        """All jobs by number, tasks of arrays by ARRAY_TASK; also those that ended."""
        lines = self.call("squeue", "--array", "--noheader", "--states=all", "--format=%i|%T|%r").splitlines()
        rows = (line.strip().split("|") for line in lines)
        return {number: Job(state, reason) for number, state, reason in rows}

    def restarts(self, job: str) -> int:
        """How often a job or a task has been put back into the queue."""
        words = self.call("scontrol", "show", "job", job, "--oneliner").split()
        return next(int(word.removeprefix("Restarts=")) for word in words if word.startswith("Restarts="))

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        parts = []
        for log in sorted(self.folder.glob("*.out.log")):
            lines = log.read_text(errors="replace").splitlines()
            parts.append("\n".join([f"--- {log.name}", *lines[-40:]]))
        return "\n".join(parts)


def processes(*variables: str) -> dict[int, str]:
    """Processes whose environment has all these variables (``NAME=VALUE``), with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and {*variables} <= {*(entry / "environ").read_text(errors="replace").split("\0")}:
                found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            pass  # it ended, or is somebody else's
    found.pop(os.getpid(), None)
    return found


@contextmanager
def running(programs: Programs, folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Start Slurm in a folder that does not exist yet; at the end stop it and all it has started.

    Args:
        programs: of Slurm and munge.
        folder: for configuration, state and logs.
        environment: for daemons and jobs.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(programs, folder))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    own = {"PATH": os.pathsep.join(programs.path), "SLURM_CONF": str(configuration)}
    if libraries := programs.libraries():
        own["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [environment.get("LD_LIBRARY_PATH")])])
    cluster = Cluster(programs, folder, {**environment, **own})
    munge = [
        *("--key-file", folder / "munge.key", "--socket", folder / "munge.socket", "--pid-file", folder / "munge.pid"),
        *("--seed-file", folder / "munge.seed", "--log-file", folder / "munge.log", "--force"),
    ]
    step_daemon = () if programs.root is None else ("-d", programs.find("slurmstepd"))
    daemons: list[subprocess.Popen[bytes]] = []
    _adopt_orphans()
    try:
        daemons.append(_start(cluster, "munged", "--foreground", *munge))
        wait_for("munge answers", (folder / "munge.socket").exists, 20)
        daemons.append(_start(cluster, "slurmctld", "-D", "-i"))
        daemons.append(_start(cluster, "slurmd", "-D", "-N", "toy", *step_daemon))
        wait_for("the node is idle", lambda: _state_of_node(cluster, daemons) == "idle", 60)
        yield cluster
    finally:
        _stop(configuration)
        for daemon in daemons:
            daemon.wait()
        _reap_orphans()


def _configuration(programs: Programs, folder: Path) -> str:
    with socket.socket() as one, socket.socket() as other:
        for unused in (one, other):
            unused.bind(("127.0.0.1", 0))
        text = _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller_port=one.getsockname()[1],
            node_port=other.getsockname()[1],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
            credential=CREDENTIAL_SECONDS,
            cpus=CPUS,
        )
    return text if programs.root is None else f"{text}PluginDir={programs.libraries()[-1]}\n"


def _start(cluster: Cluster, name: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [cluster.programs.find(name), *map(str, arguments)]
    with (cluster.folder / f"{name}.out.log").open("wb") as log:
        return subprocess.Popen(
            command, env=cluster.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _state_of_node(cluster: Cluster, daemons: Sequence[subprocess.Popen[bytes]]) -> str:
    if any(daemon.poll() is not None for daemon in daemons):
        raise NotRunning(f"a daemon of Slurm or munge has ended:\n{cluster.logs()}")
    try:
        return cluster.call("sinfo", "--noheader", "--format=%T").strip()
    except subprocess.CalledProcessError:
        return ""  # the controller does not answer yet


def _adopt_orphans() -> None:
    """Become the parent of processes that daemons leave behind: not every machine has an init that reaps them."""
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of prctl
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _reap_orphans() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass


def _stop(configuration: Path) -> None:
    """End all processes that have this configuration in their environment: daemons, steps and jobs."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes(f"SLURM_CONF={configuration}"):
            for sent in (number, signal.SIGCONT):
                try:
                    os.kill(pid, sent)
                except ProcessLookupError:
                    break
        try:
            wait_for("Slurm ends", lambda: not processes(f"SLURM_CONF={configuration}"), 10)
            return
        except Timeout:
            continue
    raise Timeout("processes of Slurm do not end: " + ", ".join(processes(f"SLURM_CONF={configuration}").values()))
