"""Which format a directory has."""

from pathlib import Path

from fairseq_knn.datastore.checking import Check, Vocabulary
from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.datastore.knnbox_check import KnnboxCheck
from fairseq_knn.datastore.sharded import ShardedDatastore
from fairseq_knn.datastore.sharded_check import ShardedCheck


def open_datastore(path: Path) -> Datastore:
    """Open a datastore of any format this package reads.

    Raises:
        DatastoreError: see :meth:`Datastore.load <fairseq_knn.datastore.Datastore.load>`.
    """
    if KnnboxDatastore.recognises(path):
        return KnnboxDatastore.open(path)
    return ShardedDatastore.open(path)


def open_check(path: Path, vocabulary: Vocabulary | None = None) -> Check:
    """The check of a datastore of any format, finished or not.

    Args:
        path: its directory.
        vocabulary: compared with the one it was built with.

    Raises:
        DatastoreError: there is none, or what describes it is damaged, so that there is nothing to compare with.
    """
    check = KnnboxCheck if KnnboxDatastore.recognises(path) else ShardedCheck
    return check(path, vocabulary)
