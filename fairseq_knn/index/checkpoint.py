"""An index that is being built, kept so that an interrupted build goes on."""

from dataclasses import asdict
from pathlib import Path

import faiss

from fairseq_knn.datastore.layout import index_path
from fairseq_knn.errors import UserError
from fairseq_knn.index.faiss_files import read_index, write_index
from fairseq_knn.index.record import IndexSettings
from fairseq_knn.storage.atomic import publish, read_json, remove_partials, write_json


class Checkpoint:
    """A trained index with some or all of its keys, in two hidden files of the datastore's directory.

    Args:
        root: directory of the datastore.
        settings: what is being built; a checkpoint of anything else is deleted.
        fresh: delete a checkpoint of these settings too.
    """

    def __init__(self, root: Path, settings: IndexSettings, *, fresh: bool = False) -> None:
        self._target = index_path(root)
        self._file = root / ".index.faiss.checkpoint"
        self._settings_file = root / ".index.faiss.checkpoint.json"
        for path in (self._target, self._file, self._settings_file):
            remove_partials(path)
        if fresh or not self._is_of(settings):
            self.remove()
        self._settings = settings

    def _is_of(self, settings: IndexSettings) -> bool:
        try:
            return bool(read_json(self._settings_file) == asdict(settings))
        except (FileNotFoundError, UserError):
            return False

    def load(self) -> faiss.Index | None:
        """The index as it was saved last; ``None`` if there is none."""
        return read_index(self._file) if self._file.exists() else None

    def save(self, index: faiss.Index) -> str:
        """Write the index and return the SHA-256 of the file."""
        if not self._settings_file.exists():
            write_json(self._settings_file, asdict(self._settings))
        return write_index(index, self._file)

    @property
    def bytes(self) -> int:
        """Size of the saved index."""
        return self._file.stat().st_size

    def publish(self) -> None:
        """Make the saved index the datastore's and remove what else is left."""
        publish(self._file, self._target)
        self.remove()

    def remove(self) -> None:
        """Delete the checkpoint."""
        for path in (self._file, self._settings_file):
            path.unlink(missing_ok=True)
