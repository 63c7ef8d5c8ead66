"""``clusters-NAME.npz``: which cluster every entry of a datastore is in.

Three plain arrays: ``cluster`` (int32, (N,)), ``datastore`` (the digest of the datastore, text) and ``made`` (how they
were made and how many they are, JSON as text).
"""

import json
import re
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.storage.atomic import atomic_path
from fairseq_knn.storage.digest import short

CLUSTERS_SCHEMA = 1
_COUNTED = 1 << 24  # entries at a time
_NAME = re.compile(r"[A-Za-z0-9_-]+")
# What reading an archive of arrays that is damaged may end in.
DAMAGE = (OSError, EOFError, KeyError, ValueError, TypeError, SyntaxError, zipfile.BadZipFile, zlib.error)


class Clusters:
    """A partition of the entries of a datastore.

    Args:
        name: one datastore may have several.
        cluster: cluster of every entry, int32 (N,), at least 0 and below *count*.
        count: number of clusters, empty ones included.
        made: how they were made: ``method``, and its settings.
    """

    def __init__(self, name: str, cluster: np.ndarray, count: int, made: dict[str, Any]) -> None:
        self.name, self.cluster, self.count, self.made = name, cluster, count, made

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of entries of every cluster, int64 (count,)."""
        sizes = np.zeros(self.count, np.int64)
        # Piece by piece: numpy counts a copy with twice as many bytes.
        for start in range(0, len(self.cluster), _COUNTED):
            sizes += np.bincount(self.cluster[start : start + _COUNTED], minlength=self.count)
        return sizes

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where the members of every cluster begin among :attr:`members`, and N: int64 (count + 1,)."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @cached_property
    def members(self) -> np.ndarray:
        """The entries, cluster after cluster, ascending within each: (N,), int32 as far as that holds them."""
        order = np.argsort(self.cluster, kind="stable")
        return order.astype(np.int32) if len(order) < 2**31 else order

    def summary(self) -> str:
        """How many there are and how large, as a phrase."""
        filled = self.sizes[self.sizes > 0]
        empty = f", {self.count - len(filled):,} of them empty" if len(filled) < self.count else ""
        return (
            f"{self.count:,} clusters{empty}, of {int(np.median(filled)):,} entries in the median and up to "
            f"{int(filled.max()):,}"
        )

    def save(self, datastore: Datastore) -> Path:
        """Write the file; equal clusters give equal bytes.

        Raises:
            UserError: the disk is full or the place not writable.
        """
        path = clusters_path(datastore.path, self.name)
        made = json.dumps({"schema": CLUSTERS_SCHEMA, "clusters": self.count, "made": self.made}, sort_keys=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, cluster=self.cluster, datastore=np.array(datastore.digest), made=np.array(made))
        return path

    @classmethod
    def load(cls, datastore: Datastore, name: str) -> "Clusters":
        """Read the clusters of that name.

        Raises:
            DatastoreError: there are none (which there are is said), they are damaged, or another datastore's.
        """
        record = ClustersRecord.load(datastore, name)
        record.require_own(datastore)
        damaged = _damaged(record.path)
        try:
            with np.load(record.path, allow_pickle=False) as content:
                cluster = content["cluster"]
        except DAMAGE as error:
            raise DatastoreError(f"{record.path} cannot be read ({error}): {damaged}") from error
        if cluster.dtype != np.int32 or cluster.shape != (datastore.entries,):
            raise DatastoreError(
                f"{record.path} holds numbers of type {cluster.dtype} and shape {cluster.shape}, not the clusters of "
                f"{datastore.entries:,} entries: {damaged}"
            )
        low, high = int(cluster.min()), int(cluster.max())
        if low < 0 or high >= record.count:
            raise DatastoreError(
                f"{record.path} names clusters {low} to {high}, but has {record.count:,} (0 to {record.count - 1}): "
                f"{damaged}"
            )
        return cls(name, cluster, record.count, record.made)


class ClustersRecord:
    """What a file of clusters says of itself, read without the clusters.

    Args:
        path: the file.
        datastore: digest of the datastore whose entries they are of.
        count: number of clusters.
        made: how they were made.
    """

    def __init__(self, path: Path, datastore: str, count: int, made: dict[str, Any]) -> None:
        self.path, self.datastore, self.count, self.made = path, datastore, count, made

    @classmethod
    def load(cls, datastore: Datastore, name: str) -> "ClustersRecord":
        """
        Raises:
            DatastoreError: there are no clusters of that name, or what the file says of itself is damaged.
        """
        path = clusters_path(datastore.path, checked_name(name))
        if not path.exists():
            there = ", ".join(clusters_of(datastore))
            raise DatastoreError(
                f"the datastore {datastore.path} has no clusters {name!r}, "
                + (f"only {there}: name one of these, or" if there else "nor any others:")
                + f" make them with `fairseq-knn cluster {datastore.path} --name {name}`"
            )
        try:
            with np.load(path, allow_pickle=False) as content:
                digest, told = str(content["datastore"]), json.loads(str(content["made"]))
            schema, count, made = int(told["schema"]), int(told["clusters"]), dict(told["made"])
        except DAMAGE as error:
            raise DatastoreError(f"{path} cannot be read ({error}): {_damaged(path)}") from error
        if schema != CLUSTERS_SCHEMA:
            raise DatastoreError(
                f"{path} has format version {schema}, this package reads version {CLUSTERS_SCHEMA}: install the "
                "version of fairseq_knn that wrote it, or make the clusters again"
            )
        return cls(path, digest, count, made)

    def require_own(self, datastore: Datastore) -> None:
        """
        Raises:
            DatastoreError: the clusters are another datastore's.
        """
        if self.datastore != datastore.digest:
            raise DatastoreError(
                f"{self.path} holds the clusters of another datastore (digest {short(self.datastore)}) than "
                f"{datastore.path} (digest {short(datastore.digest)}): {_damaged(self.path)}"
            )


def clusters_of(datastore: Datastore) -> list[str]:
    """Names of the clusters that a datastore has, in alphabetical order."""
    found = datastore.path.glob(clusters_path(datastore.path, "*").name)
    return sorted(file.stem.removeprefix("clusters-") for file in found)


def checked_name(name: str) -> str:
    """*name*, if clusters may be called that.

    Raises:
        ConfigurationError: they may not.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"clusters cannot be called {name!r}: a name has letters, digits, underscores and hyphens only"
        )
    return name


def _damaged(path: Path) -> str:
    name = path.stem.removeprefix("clusters-")
    return f"restore it, or make it again with `fairseq-knn cluster {path.parent} --name {name} --overwrite`"
