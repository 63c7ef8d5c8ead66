"""Stock programs without the seconds that importing them takes: forks of one process in which they are imported.

``with warm.programs(folder):`` puts programs of the names below into a folder, for ``PATH``. Each is a small client: it
hands arguments, environment, directory and open files to the process, which forks; the fork is the program.
"""

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("fairseq-preprocess", "fairseq-train", "fairseq-hydra-train", "fairseq-generate")
# Libraries that the programs import when they need them.
_LATER = ("torch._dynamo", "sacrebleu")
_ROOT = Path(__file__).parent.parent
_REQUEST = 1 << 20  # bytes

_CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [len(request).to_bytes(4)], [0, 1, 2])
server.sendall(request)
status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextmanager
def programs(folder: Path) -> Iterator[None]:
    """Serve the programs in a folder, one thread each."""
    folder.mkdir(exist_ok=True)
    address = str(folder / "socket")
    for name in PROGRAMS:
        (folder / name).write_text(_CLIENT.format(python=sys.executable, address=address))
        (folder / name).chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.warm", address]
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def _serve(address: str) -> None:
    for name in _LATER:
        importlib.import_module(name)
    modules = {name: importlib.import_module(f"fairseq_cli.{_module(name)}") for name in PROGRAMS}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end leave nothing behind
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            client.sendall(bytes([_run(client, modules)]))
            os._exit(0)
        client.close()


def _module(program: str) -> str:
    return program.removeprefix("fairseq-").replace("-", "_")


def _run(client: socket.socket, modules: dict[str, object]) -> int:
    """Be the program that was called; its status."""
    length, files, _, _ = socket.recv_fds(client, 4, 3)
    request = b""
    while len(request) < int.from_bytes(length):
        request += client.recv(_REQUEST)
    arguments, environment, directory = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    status: object = 0
    try:
        modules[Path(arguments[0]).name].cli_main()  # type: ignore[attr-defined]
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status if isinstance(status, int) else int(status is not None)


if __name__ == "__main__":
    _serve(sys.argv[1])
