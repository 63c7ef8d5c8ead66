"""Taking over the clusters that RetoMaton or knn-transformers made."""

from pathlib import Path

from fairseq_knn.clustering.building import finished_clusters, save_clusters
from fairseq_knn.clustering.clusters import Clusters
from fairseq_knn.clustering.pickled import read_members
from fairseq_knn.clustering.progress import Progress, Report
from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.atomic import directory_lock
from fairseq_knn.storage.digest import file_digest


def import_members(
    datastore: Datastore, name: str, path: Path, *, overwrite: bool = False, report: Report | None = None
) -> Clusters:
    """Write ``clusters-NAME.npz`` with what a members file says; the same file again changes nothing.

    Args:
        datastore: whose entries they are.
        name: of the clusters.
        path: the members file.
        overwrite: replace clusters of that name.
        report: called with a line about what was done.

    Raises:
        ConfigurationError: the name cannot be used.
        DatastoreError: the file is no members file of this datastore, or there are other clusters of that name.
        UserError: the disk is full or the place not writable.
    """
    progress = Progress(report)
    if not path.is_file():
        raise DatastoreError(f"there is no members file {path}: name the .pkl that RetoMaton or knn-transformers wrote")
    made = {"method": "members", "sha256": file_digest(path)}
    with directory_lock(datastore.path):
        if not overwrite and (finished := finished_clusters(datastore, name, made)) is not None:
            progress.say(f"{clusters_path(datastore.path, name)} is up to date: {finished.summary()}")
            return finished
        return save_clusters(datastore, name, *read_members(path, datastore.entries), made, progress)
