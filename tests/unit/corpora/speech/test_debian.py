"""Debian's packages: apt-get as it is run, its failures, checksums, the cache. apt-get itself is a stand-in."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from fairseq_knn.corpora.speech.debian import Deb, NotAvailable, fetch_deb, members
from fairseq_knn.errors import UserError

STAND_IN = """#!/bin/sh
echo "$@" >> {here}/calls
if [ -e {here}/error ]; then cat {here}/error >&2; exit 100; fi
cp {here}/index/* .
"""


def package(files: dict[str, bytes]) -> bytes:
    """A package with these files, and a link that leads nowhere."""
    parts = {}
    for part, content in (("control.tar.xz", {"./control": b"odd"}), ("data.tar.xz", files)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            link = tarfile.TarInfo("./link")
            link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
            archive.addfile(link)
        parts[part] = buffer.getvalue()
    result = b"!<arch>\n"
    for name, content in {"debian-binary": b"2.0\n", **parts}.items():
        result += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}".encode() + b"`\n"
        result += content + b"\n" * (len(content) % 2)
    return result


FILES = {"./usr/share/a": b"one", "./usr/share/b": b"two"}
CONTENT = package(FILES)
DEB = Deb("tiny", "1.0-1", hashlib.sha256(CONTENT).hexdigest(), 0.1)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of the stand-in: ``index/`` holds what it downloads, ``error`` what it says instead."""
    here = tmp_path / "apt"
    (here / "index").mkdir(parents=True)
    (here / "index" / DEB.filename).write_bytes(CONTENT)
    (here / "apt-get").write_text(STAND_IN.format(here=here))
    (here / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:/usr/bin:/bin")
    return here


def silent(line: str) -> None:
    del line


def test_files_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(CONTENT)
    assert dict(members(tmp_path / "a.deb")) == {"usr/share/a": b"one", "usr/share/b": b"two"}


def test_no_package(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"a\.deb is no package of Debian"):
        list(members(tmp_path / "a.deb"))


def test_downloaded_once(cache: Path, apt: Path) -> None:
    for _ in range(2):
        assert fetch_deb(DEB, silent) == cache / "tiny_1.0-1_all.deb"
    assert (apt / "calls").read_text() == "download tiny=1.0-1\n"
    assert [path.name for path in cache.iterdir()] == [DEB.filename]


def test_damaged_in_the_cache(cache: Path, apt: Path) -> None:
    cache.mkdir()
    (cache / DEB.filename).write_bytes(CONTENT[:-1])
    assert fetch_deb(DEB, silent).read_bytes() == CONTENT


@pytest.mark.usefixtures("cache")
def test_apt_get_fails(apt: Path) -> None:
    (apt / "error").write_text("W: odd\nE: Unable to locate package tiny\n")
    with pytest.raises(NotAvailable, match="apt-get says: Unable to locate package tiny"):
        fetch_deb(DEB, silent)


def test_another_file(cache: Path, apt: Path) -> None:
    (apt / "index" / DEB.filename).write_bytes(b"something else")
    with pytest.raises(NotAvailable, match=r"another tiny_1\.0-1_all\.deb"):
        fetch_deb(DEB, silent)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_there_is_no_apt_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match="no apt-get"):
        fetch_deb(DEB, silent)
