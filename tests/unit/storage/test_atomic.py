"""Files are whole or absent, and what the operating system refuses is one clear sentence."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairseq_knn.errors import UserError
from fairseq_knn.storage.atomic import (
    atomic_path,
    directory_lock,
    explain_os_errors,
    make_directory,
    partial_path,
    read_json,
    remove_partials,
    write_json,
)


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_data_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        stock = getattr(os, name)

        def call(*args: Any) -> Any:
            happened.append(name)
            return stock(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    write_json(tmp_path / "file", 1)
    assert happened == ["fsync", "replace", "fsync"]  # the file, its name, the directory


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_partial_files_are_hidden_beside_the_file_and_removed_by_name(tmp_path: Path) -> None:
    mine, other = tmp_path / "a.json", tmp_path / "b.json"
    for path in (mine, other):
        partial_path(path).touch()
        assert partial_path(path).name.startswith(".")
        assert partial_path(path).parent == tmp_path
    remove_partials(mine)
    assert os.listdir(tmp_path) == [partial_path(other).name]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left for .*/place.*free some space.*same command again"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "place cannot be written.*mend its permissions"),
        (errno.EROFS, "place cannot be written.*choose a place you may write to"),
        (errno.EPERM, "place cannot be written"),
        (errno.EEXIST, "a file is where a directory is needed"),
        (errno.ENOTDIR, "a file is where a directory is needed"),
    ],
)
def test_refusals_are_explained(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught, explain_os_errors(tmp_path / "place"):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="I/O") as caught, explain_os_errors(Path("place")):
        raise OSError(errno.EIO, "I/O")
    assert not isinstance(caught.value, UserError)


def test_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match="a file is where a directory is needed"):
            make_directory(path)


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": [1, None], "a": "ü"})
    write_json(tmp_path / "other", {"a": "ü", "b": [1, None]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert read_json(tmp_path / "one") == {"a": "ü", "b": [1, None]}


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is damaged.*build it again"):
        read_json(tmp_path / "x.json")


def test_absent_json_is_not_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "x.json")


def test_unreadable_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, so the refusal is made here.
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"x\.json cannot be read \(Permission denied\)"):
        read_json(tmp_path / "x.json")


def test_lock_excludes_others_and_is_released(tmp_path: Path) -> None:
    import fcntl

    def free() -> bool:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    with directory_lock(tmp_path):
        assert not free()
    assert free()


def test_json_is_readable_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"n": 3})
    assert json.loads((tmp_path / "x.json").read_text()) == {"n": 3}
    assert (tmp_path / "x.json").read_text().endswith("}\n")
