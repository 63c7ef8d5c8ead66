"""Files that appear under their name only when they are complete."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq_knn.errors import UserError

PARTIAL_SUFFIX = ".part"


def partial_path(path: Path) -> Path:
    """Name under which *path* is written before it is complete (hidden, unique to this process)."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")


def remove_partials(path: Path) -> None:
    """Delete what interrupted processes left behind while writing *path*."""
    for leftover in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write *path* into one sentence with the remedy.

    Raises:
        UserError: the disk is full, or the place is read-only, not permitted, absent or no directory.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left for {path}: free some space or choose another place and run the same "
                "command again; what is finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                f"{path} cannot be written ({error.strerror}): choose a place you may write to or mend its permissions"
            ) from error
        if error.errno in (errno.ENOENT, errno.EISDIR):
            raise UserError(
                f"{path} cannot be written: "
                + ("it is a directory" if error.errno == errno.EISDIR else f"there is no directory {path.parent}")
                + "; choose another path"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UserError(
                f"{path} cannot be written: a file is where a directory is needed; choose another path"
            ) from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, its file becomes *path*.

    The data reaches the disk before the name does, so a crash leaves the old file or the new one.

    Raises:
        UserError: see :func:`explain_os_errors`.
    """
    temporary = partial_path(path)
    with explain_os_errors(path):
        try:
            yield temporary
            publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def check_writable(path: Path) -> None:
    """Find out whether *path* could be written, before something long is done whose result it is to hold.

    Raises:
        UserError: it could not.
    """
    with explain_os_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        temporary = partial_path(path)
        temporary.touch()
        temporary.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Flush *temporary* to the disk and give it the name *path*, in this order."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames inside *path* durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create *path* and its parents.

    Raises:
        UserError: see :func:`explain_os_errors`.
    """
    with explain_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write *content* atomically; equal contents give equal bytes."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        UserError: the file is not JSON, or may not be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it or build it again") from error


@contextlib.contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory (short critical sections between ranks of one build).

    Raises:
        UserError: see :func:`explain_os_errors`.
    """
    with explain_os_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems have no locks; the critical sections stay correct for a single
        # process there, and ranks that start at different times.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
