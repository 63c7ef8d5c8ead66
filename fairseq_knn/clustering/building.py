"""Making the clusters of a datastore: resumable, and whole or absent."""

from typing import Any

import numpy as np

from fairseq_knn.clustering.clusters import Clusters, ClustersRecord, checked_name
from fairseq_knn.clustering.greedy import greedy_merge
from fairseq_knn.clustering.keys import ClusteredKeys
from fairseq_knn.clustering.kmeans import kmeans
from fairseq_knn.clustering.progress import Progress, Report
from fairseq_knn.clustering.settings import KMeans, Settings, difference, made_by
from fairseq_knn.clustering.unfinished import Unfinished
from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import DatastoreError
from fairseq_knn.index import open_backend
from fairseq_knn.index.devices import resolve_device
from fairseq_knn.storage.atomic import directory_lock


def build_clusters(
    datastore: Datastore,
    name: str,
    settings: Settings,
    *,
    device: str = "auto",
    overwrite: bool = False,
    report: Report | None = None,
) -> Clusters:
    """Cluster the entries of a datastore and write ``clusters-NAME.npz``.

    An interrupted run goes on where it was, and gives the same clusters. Finished clusters with the same settings are
    left alone.

    Args:
        datastore: whose entries are clustered.
        name: of the clusters.
        settings: method, and what it needs.
        device: where keys are searched: ``cpu``, ``cuda`` or ``auto``.
        overwrite: make them anew whatever is there.
        report: called with a line about every step; without it there are no progress bars either.

    Raises:
        ConfigurationError: a run with other settings is unfinished, or the name cannot be used.
        DatastoreError: there are other clusters of that name, or a file of keys is damaged.
        SearchIndexError: greedy merging has no index to search, or dropped keys cannot be got back from it.
        UserError: a GPU is asked for and there is none, or the disk is full.
    """
    progress, made = Progress(report), made_by(settings)
    with directory_lock(datastore.path):
        if not overwrite and (finished := finished_clusters(datastore, name, made)) is not None:
            progress.say(f"{clusters_path(datastore.path, name)} is up to date: {finished.summary()}")
            return finished
        place = resolve_device(device)
        keys = ClusteredKeys(datastore)
        unfinished = Unfinished(datastore, checked_name(name), made, fresh=overwrite)
        try:
            if isinstance(settings, KMeans):
                cluster = kmeans(keys, datastore.entries, datastore.dimension, settings, place, unfinished, progress)
                count = settings.clusters
            else:
                backend = open_backend(datastore, backend=settings.backend, device=device)
                cluster, count = greedy_merge(keys, datastore.values, backend, settings, unfinished, progress)
        except DatastoreError:
            unfinished.remove()  # it may have come from damaged keys
            raise
        clusters = save_clusters(datastore, name, cluster, count, made, progress)
        unfinished.remove()
        return clusters


def finished_clusters(datastore: Datastore, name: str, made: dict[str, Any]) -> Clusters | None:
    """The clusters of that name, if they are whole and were made like that; ``None`` if there are none.

    Raises:
        ConfigurationError: the name cannot be used.
        DatastoreError: they were made in another way, or are damaged.
    """
    if not clusters_path(datastore.path, checked_name(name)).exists():
        return None
    if other := difference(ClustersRecord.load(datastore, name).made, made):
        raise DatastoreError(
            f"{datastore.path} has clusters {name!r} with other settings (the ones there against these: {other}): "
            "choose another --name, or pass --overwrite to replace them"
        )
    return Clusters.load(datastore, name)


def save_clusters(
    datastore: Datastore, name: str, cluster: np.ndarray, count: int, made: dict[str, Any], progress: Progress
) -> Clusters:
    """Write clusters and tell of them."""
    clusters = Clusters(name, cluster, count, made)
    path = clusters.save(datastore)
    progress.say(f"{path}: {clusters.summary()}")
    return clusters
