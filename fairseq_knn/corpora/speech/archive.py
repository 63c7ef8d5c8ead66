"""Features of many recordings in one file, and the manifest that says where each begins, as stock's tasks read them."""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

_HEADER = 30  # bytes of a member's header, without its name


@dataclass(frozen=True)
class Row:
    """A line of a manifest; its fields are the columns.

    Attributes:
        id: of the recording.
        audio: where its features are.
        n_frames: how many there are.
        tgt_text: translation.
        speaker: whose voice.
        src_text: transcript.
    """

    id: str
    audio: str
    n_frames: int
    tgt_text: str
    speaker: str
    src_text: str


def manifest(rows: Iterable[Row]) -> str:
    """The text of a manifest: tab-separated, without quotes."""
    table = [tuple(field.name for field in fields(Row)), *map(astuple, rows)]
    return "".join("\t".join(map(str, line)) + "\n" for line in table)


class FeatureArchive:
    """A zip file of NumPy arrays, uncompressed, so that one can be read at its place without the others.

    Args:
        path: of the file, written anew.
        name: it will go by in manifests.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._file = path.open("wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        self._name = name

    def __enter__(self) -> "FeatureArchive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    def add(self, identifier: str, features: NDArray[np.float32]) -> str:
        """Store one recording.

        Args:
            identifier: of the recording, in ASCII.
            features: shape (frames, bins).

        Returns:
            ``NAME:OFFSET:LENGTH``, in bytes, where it is.
        """
        buffer = io.BytesIO()
        np.save(buffer, features)
        member = zipfile.ZipInfo(f"{identifier}.npy")  # dated 1980: equal recordings give equal bytes
        offset = self._file.tell() + _HEADER + len(member.filename)
        self._zip.writestr(member, buffer.getvalue())
        return f"{self._name}:{offset}:{buffer.tell()}"
