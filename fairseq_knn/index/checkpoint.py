"""An index that is being built, kept so that an interrupted build goes on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss

from fairseq_knn.datastore.layout import index_path
from fairseq_knn.errors import SearchIndexError, UserError
from fairseq_knn.index.faiss_files import read_index, write_index
from fairseq_knn.index.record import Written
from fairseq_knn.storage.atomic import publish, read_json, remove_partials, write_json
from fairseq_knn.storage.digest import file_digest, short


class HiddenFile:
    """A file in the directory of a datastore that ends up as, or in, its index, and beside it what it is made of.

    A file that is made of something else counts as absent, and is deleted when this one is begun.

    Args:
        path: of the file.
        settings: a dataclass: what the file is made of.
    """

    def __init__(self, path: Path, settings: Any) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")
        self._settings = asdict(settings)

    def _noted(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = read_json(self._note)
            return content if content["settings"] == self._settings else None
        except (FileNotFoundError, UserError, KeyError, TypeError):
            return None

    def begin(self) -> None:
        """Note what the file is made of, before it is there, and delete what interrupted processes left."""
        for file in (self.path, self._note):
            remove_partials(file)
        if not self.begun:
            self.remove()
            write_json(self._note, {"settings": self._settings, "complete": None})

    def complete(self, written: Written) -> None:
        """Note that the file is complete."""
        write_json(self._note, {"settings": self._settings, "complete": asdict(written)})

    @property
    def begun(self) -> bool:
        """Whether anything was done for it."""
        return self._noted() is not None

    @property
    def written(self) -> Written | None:
        """Size and checksum if it is complete."""
        noted = self._noted()
        if noted is None or noted["complete"] is None or not self.path.exists():
            return None
        written = Written(**noted["complete"])
        return written if self.path.stat().st_size == written.bytes else None

    def verify(self, remedy: str) -> None:
        """Compare a file that is complete with its checksum, and delete it if they differ.

        Raises:
            SearchIndexError: they differ.
        """
        written = self.written
        if written is not None and (found := file_digest(self.path)) != written.sha256:
            self.remove()
            raise SearchIndexError(
                f"{self.path} was damaged and is deleted: it had checksum {short(found)} instead of "
                f"{short(written.sha256)}; {remedy}"
            )

    def publish(self, target: Path) -> None:
        """Give the file the name *target*."""
        publish(self.path, target)
        self.remove()

    def remove(self) -> None:
        """Delete the file and what is noted of it."""
        for file in (self._note, self.path):
            file.unlink(missing_ok=True)


class Checkpoint(HiddenFile):
    """A trained index with some or all of its keys.

    Args:
        root: directory of the datastore.
        settings: see :class:`HiddenFile`.
        name: of the checkpoint, as several are kept beside each other.
    """

    def __init__(self, root: Path, settings: Any, name: str = "checkpoint") -> None:
        super().__init__(root / f".{index_path(root).name}.{name}", settings)

    def load(self) -> faiss.Index | None:
        """The index as it was saved last; ``None`` if there is none."""
        return read_index(self.path) if self.begun and self.path.exists() else None

    def save(self, index: faiss.Index) -> None:
        """Write the index as it is so far."""
        self.begin()
        write_index(index, self.path)

    def finish(self, index: faiss.Index) -> Written:
        """Write the index with all that it is to hold."""
        self.begin()
        written = Written(sha256=write_index(index, self.path), bytes=self.path.stat().st_size)
        self.complete(written)
        return written
