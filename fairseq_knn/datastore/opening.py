"""Which format a directory has."""

from pathlib import Path

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.datastore.sharded import ShardedDatastore


def open_datastore(path: Path) -> Datastore:
    """Open a datastore of any format this package reads.

    Raises:
        DatastoreError: see :meth:`Datastore.load <fairseq_knn.datastore.Datastore.load>`.
    """
    if KnnboxDatastore.recognises(path):
        return KnnboxDatastore.open(path)
    return ShardedDatastore.open(path)
