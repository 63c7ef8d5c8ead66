"""Clusters that are being made, kept so that an interrupted run goes on."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.clustering.clusters import DAMAGE
from fairseq_knn.clustering.settings import difference
from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import atomic_path, explain_os_errors, remove_partials

_ITEM = np.dtype(np.int32)


class Unfinished:
    """Two hidden files of the datastore's directory: the state of a run, and clusters of the entries from the first on.

    Args:
        datastore: whose entries are clustered.
        name: of the clusters.
        made: how they are made.
        fresh: delete what another run has left.

    Raises:
        ConfigurationError: a run with other settings is unfinished, and *fresh* is off.
    """

    def __init__(self, datastore: Datastore, name: str, made: dict[str, Any], *, fresh: bool) -> None:
        target = clusters_path(datastore.path, name)
        self._state_file = target.with_name(f".{target.stem}.state.npz")
        self._assigned_file = target.with_name(f".{target.stem}.assigned")
        self._datastore, self._made = datastore.digest, made
        for path in (target, self._state_file):
            remove_partials(path)
        begun = self._read("datastore", "made")
        if fresh or begun is None or str(begun["datastore"]) != self._datastore:
            self.remove()
        elif other := difference(json.loads(str(begun["made"])), made):
            raise ConfigurationError(
                f"{datastore.path} holds unfinished clusters {name!r} with other settings (the ones begun against "
                f"these: {other}): finish them with the settings they were begun with, pass --overwrite to start over, "
                "or choose another --name"
            )

    def load(self) -> dict[str, np.ndarray] | None:
        """The arrays that were saved last; ``None`` if there are none."""
        return self._read()

    def save(self, **arrays: np.ndarray | int) -> None:
        """Keep the state of the run in place of the one before.

        Raises:
            UserError: the disk is full or the place not writable.
        """
        content: dict[str, Any] = {**arrays, "datastore": self._datastore, "made": json.dumps(self._made)}
        with atomic_path(self._state_file) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)

    def _read(self, *names: str) -> dict[str, np.ndarray] | None:
        """The arrays of these names, or all; ``None`` if there is no state, or not a whole one."""
        try:
            with np.load(self._state_file, allow_pickle=False) as content:
                return {name: content[name] for name in names or content.files}
        except DAMAGE:
            return None

    def assigned(self, rows: int) -> np.ndarray:
        """Clusters of the first entries, int32 (n,), as far as they are kept.

        Args:
            rows: number of entries that are assigned at a time; what is kept is of whole blocks.
        """
        if not self._assigned_file.exists():
            return np.empty(0, _ITEM)
        # If the machine went down the last block may be incomplete; those before had reached the disk by then.
        blocks = max(0, self._assigned_file.stat().st_size // (rows * _ITEM.itemsize) - 1)
        return np.fromfile(self._assigned_file, _ITEM, blocks * rows)

    def assign(self, start: int, cluster: np.ndarray) -> None:
        """Keep the clusters of a block, int32 (n,), of which *start* is the first entry.

        Raises:
            UserError: the disk is full or the place not writable.
        """
        with explain_os_errors(self._assigned_file), self._assigned_file.open("r+b" if start else "wb") as file:
            file.truncate(start * _ITEM.itemsize)
            file.seek(start * _ITEM.itemsize)
            file.write(cluster.astype(_ITEM).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete both files."""
        for path in (self._state_file, self._assigned_file):
            path.unlink(missing_ok=True)


def unfinished_clusters(root: Path) -> list[str]:
    """Names of the clusters of which a run is unfinished."""
    pattern = f".{clusters_path(root, '*').stem}.state.npz"
    return sorted(file.name.removeprefix(".clusters-").removesuffix(".state.npz") for file in root.glob(pattern))
