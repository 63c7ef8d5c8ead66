"""Pinned packages of Debian: downloaded by apt-get, verified, cached, never installed."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.corpora.wheel import cache_directory, sha256_of
from fairseq_knn.errors import UserError
from fairseq_knn.storage.atomic import explain_os_errors, make_directory, publish

_MAGIC = b"!<arch>\n"
_ENTRY = 60  # bytes of an entry's header


class NotAvailable(Exception):
    """There is no apt-get here, or it cannot bring the package; the message says which."""


@dataclass(frozen=True)
class Deb:
    """One exact package for all architectures.

    Attributes:
        package: its name.
        version: its pinned version.
        sha256: of the file, in hexadecimal digits.
        megabytes: what the user is about to download.
    """

    package: str
    version: str
    sha256: str
    megabytes: float

    @property
    def filename(self) -> str:
        """What apt-get calls the file."""
        return f"{self.package}_{self.version}_all.deb"


def fetch_deb(deb: Deb, report: Callable[[str], None]) -> Path:
    """Return the path of a package whose checksum is right, downloading it if the cache has none.

    Args:
        deb: which.
        report: called with lines of progress.

    Raises:
        NotAvailable: apt-get is not here, or brings no such file.
        UserError: the cache cannot be written.
    """
    cached = cache_directory() / deb.filename
    with explain_os_errors(cached):
        if cached.exists() and sha256_of(cached) == deb.sha256:
            report(f"{deb.filename}: in the cache, {cached.parent}")
            return cached
    make_directory(cached.parent)
    report(f"downloading {deb.package} {deb.version} ({deb.megabytes:.0f} MB) to {cached.parent}")
    with (
        explain_os_errors(cached),
        tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as temporary,
    ):
        downloaded = Path(temporary) / deb.filename
        try:
            process = subprocess.run(
                ["apt-get", "download", f"{deb.package}={deb.version}"],
                cwd=temporary,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except FileNotFoundError as error:
            raise NotAvailable("this system has no apt-get") from error
        if process.returncode != 0 or not downloaded.exists():
            errors = [line for line in process.stderr.splitlines() if line.startswith("E: ")]
            raise NotAvailable(f"apt-get says: {(errors or ['nothing'])[-1].removeprefix('E: ')}")
        if sha256_of(downloaded) != deb.sha256:
            raise NotAvailable(f"apt-get brought another {deb.filename} than the one expected")
        publish(downloaded, cached)
    return cached


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the files in a package, in its order.

    Raises:
        UserError: it is no package of Debian.
    """
    content = path.read_bytes()
    start = len(_MAGIC)
    while content.startswith(_MAGIC) and start < len(content):
        name, size = content[start : start + 16].decode().strip(), int(content[start + 48 : start + 58])
        start += _ENTRY
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(content[start : start + size])) as archive:
                for member in archive:
                    if member.isfile() and (file := archive.extractfile(member)) is not None:
                        yield member.name.removeprefix("./"), file.read()
            return
        start += size + size % 2
    raise UserError(f"{path} is no package of Debian: remove it and run the same command again")
