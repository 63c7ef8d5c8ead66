"""The moments at which a run touches the disk, and something happening at one of them.

As a program it runs a stock program and lets the disk fill up or the process die at a moment::

    python -m tests.integration.moments DIR --list FILE PROGRAM ARGUMENTS...
    python -m tests.integration.moments DIR --kill "write .keys-00003.npy" PROGRAM ARGUMENTS...
    python -m tests.integration.moments DIR --fill "write .keys-00003.npy" PROGRAM ARGUMENTS...

Moments are named by what happens to which file below DIR, without the process id that temporary names
contain: ``open``, ``write`` (half of it is written), ``replace`` (before the file gets its name),
``replaced`` (after), ``unlink``, ``rename``, ``mkdir``. A second time is ``... #2``, and so on.
"""

import argparse
import errno
import importlib
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

_PROCESS = re.compile(r"\.\d+\.part$")


class Moments:
    """Names every moment, and acts at one.

    Args:
        root: files elsewhere do not count.
        at: name of the moment to act at.
        act: what happens then.
    """

    def __init__(self, root: Path, at: str = "", act: Callable[[], None] = lambda: None) -> None:
        self.names: list[str] = []
        self._root = str(root.resolve())
        self._at, self._act = at, act
        self._seen: Counter[str] = Counter()

    def reached(self, what: str, path: Any, before_acting: Callable[[], object] = lambda: None) -> None:
        """Note a moment; *before_acting* is done only if it is the one to act at."""
        full = os.path.realpath(os.fspath(path)) if isinstance(path, str | os.PathLike) else ""
        if full != self._root and not full.startswith(self._root + os.sep):
            return
        name = f"{what} {_PROCESS.sub('', os.path.basename(full))}"
        self._seen[name] += 1
        if (times := self._seen[name]) > 1:
            name += f" #{times}"
        self.names.append(name)
        if name == self._at:
            before_acting()
            self._act()

    def __enter__(self) -> "Moments":
        self._patches: list[Any] = [mock.patch.object(io, "open", self._open(io.open)), mock.patch("os.fsync")]
        for module_function in ("unlink", "rename", "mkdir", "replace"):
            original = getattr(os, module_function)
            self._patches.append(mock.patch.object(os, module_function, self._announce(module_function, original)))
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in reversed(self._patches):
            patch.stop()

    def _announce(self, what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def function(path: Any, *args: Any, **kwargs: Any) -> Any:
            target = args[0] if what == "replace" else path
            self.reached(what, target)
            result = original(path, *args, **kwargs)
            if what == "replace":
                self.reached("replaced", target)
            return result

        return function

    def _open(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return original(path, mode, *args, **kwargs)
            file = original(path, mode, *args, **kwargs)
            self.reached("open", path)
            return _Announcing(file, path, self)

        return opened


class _Announcing:
    """A file that announces what is written to it."""

    def __init__(self, file: Any, path: Any, moments: Moments) -> None:
        self._file, self._path, self._moments = file, path, moments

    def write(self, data: Any) -> Any:
        def half() -> None:
            part = data if isinstance(data, str) else memoryview(data).cast("B")
            self._file.write(part[: len(part) // 2])
            self._file.flush()

        self._moments.reached("write", self._path, half)
        return self._file.write(data)

    def __enter__(self) -> "_Announcing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def kill() -> None:
    """End this process as the kernel or a scheduler does: at once, without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--list", type=Path)
    action.add_argument("--kill", default="")
    action.add_argument("--fill", default="")
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    module = importlib.import_module(f"fairseq_cli.{args.program.removeprefix('fairseq-')}")
    sys.argv = [args.program, *args.arguments]
    with Moments(args.root, args.kill or args.fill, kill if args.kill else fill) as moments:
        module.cli_main()
    if args.list:
        args.list.write_text("\n".join(moments.names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
