"""Downloading: pip as it is run, its failures, checksums, the cache. pip itself is a stand-in."""

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import pytest

from fairseq_knn.corpora.wheel import CACHE_VARIABLE, Wheel, cache_directory, fetch
from fairseq_knn.errors import UserError

CONTENT = b"what is in the wheel"
WHEEL = Wheel("tiny", "1.0", "tiny-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest(), 0.1)

# Takes the place of pip for the interpreter that `python -m pip` starts.
STAND_IN = """
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
calls = here / "calls.json"
earlier = json.loads(calls.read_text()) if calls.exists() else []
calls.write_text(json.dumps([*earlier, sys.argv[1:]]))
if (here / "error").exists():
    sys.exit((here / "error").read_text())
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
for path in (here / "index").iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
"""


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of the stand-in: ``index/`` holds what it downloads, ``error`` what it says instead."""
    package = tmp_path / "stand_in" / "pip"
    (package / "index").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    (package / "index" / WHEEL.filename).write_bytes(CONTENT)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package


def silent(line: str) -> None:
    del line


def test_downloads_the_pinned_wheel_only(cache: Path, pip: Path) -> None:
    lines: list[str] = []
    path = fetch(WHEEL, lines.append)
    assert path == cache / WHEEL.filename
    assert path.read_bytes() == CONTENT
    (arguments,) = json.loads((pip / "calls.json").read_text())
    assert {"download", "--no-deps", "--ignore-requires-python", "tiny==1.0"} <= set(arguments)
    assert "install" not in arguments
    assert "--platform" not in arguments
    assert not any("://" in argument for argument in arguments)  # the index is the user's own
    assert "downloading tiny==1.0" in lines[0]
    assert [entry.name for entry in cache.iterdir()] == [WHEEL.filename]


def test_a_wheel_of_one_python_is_downloaded_under_any(cache: Path, pip: Path) -> None:
    filename = "tiny-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    (pip / "index" / WHEEL.filename).rename(pip / "index" / filename)
    assert fetch(dataclasses.replace(WHEEL, filename=filename), silent) == cache / filename
    (arguments,) = json.loads((pip / "calls.json").read_text())
    given = list(itertools.pairwise(arguments))
    for option in (
        ("--python-version", "311"),
        ("--implementation", "cp"),
        ("--abi", "cp311"),
        ("--platform", "manylinux_2_17_x86_64"),
        ("--platform", "manylinux2014_x86_64"),
    ):
        assert option in given


def test_second_time_from_the_cache(cache: Path, pip: Path) -> None:
    fetch(WHEEL, silent)
    lines: list[str] = []
    fetch(WHEEL, lines.append)
    assert len(json.loads((pip / "calls.json").read_text())) == 1
    assert "in the cache" in lines[0]


@pytest.mark.usefixtures("pip")
def test_a_damaged_file_in_the_cache_is_replaced(cache: Path) -> None:
    cache.mkdir()
    (cache / WHEEL.filename).write_bytes(CONTENT[:-1])
    lines: list[str] = []
    assert fetch(WHEEL, lines.append).read_bytes() == CONTENT
    assert "damaged" in lines[0]


def test_checksum_mismatch(cache: Path, pip: Path) -> None:
    (pip / "index" / WHEEL.filename).write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(UserError, match=f"sha256 {found}, expected {WHEEL.sha256}.*another index"):
        fetch(WHEEL, silent)
    assert list(cache.iterdir()) == []


def test_pip_fails(cache: Path, pip: Path) -> None:
    (pip / "error").write_text("WARNING: retrying\nERROR: No matching distribution found for tiny==1.0\n")
    with pytest.raises(
        UserError, match=r"\(No matching distribution found for tiny==1\.0\).*check the network"
    ) as error:
        fetch(WHEEL, silent)
    assert str(cache) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_pip_brings_another_file(pip: Path) -> None:
    (pip / "index" / WHEEL.filename).rename(pip / "index" / "tiny-1.0-cp313-none-any.whl")
    with pytest.raises(UserError, match=f"it brought no {WHEEL.filename}"):
        fetch(WHEEL, silent)


@pytest.mark.usefixtures("cache")
def test_there_is_no_pip(pip: Path) -> None:
    (pip / "error").write_text("/usr/bin/python3: No module named pip\n")
    with pytest.raises(UserError, match=r"has no pip: run .* -m ensurepip"):
        fetch(WHEEL, silent)


@pytest.mark.usefixtures("pip")
def test_cache_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        fetch(WHEEL, silent)


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_directory() == tmp_path / ".cache" / "fairseq_knn"
    monkeypatch.setenv(CACHE_VARIABLE, "~/elsewhere")
    assert cache_directory() == tmp_path / "elsewhere"
