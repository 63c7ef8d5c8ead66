"""Finding everything that is wrong with a datastore and its index, not only the first fault that hinders their use."""

from pathlib import Path

from fairseq_knn.datastore import KnnboxDatastore
from fairseq_knn.verification.findings import Check, Vocabulary
from fairseq_knn.verification.knnbox import KnnboxCheck
from fairseq_knn.verification.sharded import ShardedCheck

__all__ = ["Check", "Vocabulary", "open_check"]


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
