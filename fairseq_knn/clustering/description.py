"""What clusters a datastore has, told without reading them."""

from typing import Any

from fairseq_knn.clustering.clusters import ClustersRecord, clusters_of
from fairseq_knn.clustering.unfinished import unfinished_clusters
from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import UserError


def describe_clusters(datastore: Datastore) -> list[dict[str, Any]]:
    """What is known of each of a datastore's clusterings.

    Returns:
        of each ``name``, ``state`` (``ready``, ``unusable`` or ``unfinished``) and ``bytes`` of the file; of one that
        is ready ``clusters``, their number, and ``made``, the method and its settings; of others ``message`` says why.
    """
    return [_finished(datastore, name) for name in clusters_of(datastore)] + [
        {
            "name": name,
            "state": "unfinished",
            "bytes": 0,
            "message": "run the command that makes them again: it goes on where it was",
        }
        for name in unfinished_clusters(datastore.path)
    ]


def _finished(datastore: Datastore, name: str) -> dict[str, Any]:
    known = {"name": name, "bytes": clusters_path(datastore.path, name).stat().st_size}
    try:
        record = ClustersRecord.load(datastore, name)
        # The digest of another toolkit's datastore takes reading all its values.
        if datastore.plan is not None:
            record.require_own(datastore)
    except UserError as error:
        return {**known, "state": "unusable", "message": str(error)}
    return {**known, "state": "ready", "clusters": record.count, "made": record.made}
