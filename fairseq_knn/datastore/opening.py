"""Which format a directory has."""

from pathlib import Path

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.datastore.knnlm import KnnlmDatastore
from fairseq_knn.datastore.layout import manifest_path, plan_path
from fairseq_knn.datastore.sharded import ShardedDatastore
from fairseq_knn.errors import DatastoreError


def open_datastore(path: Path) -> Datastore:
    """Open a datastore of any format this package reads.

    Raises:
        DatastoreError: see :meth:`Datastore.load <fairseq_knn.datastore.Datastore.load>`.
    """
    if KnnboxDatastore.recognises(path):
        return KnnboxDatastore.open(path)
    if not (manifest_path(path).exists() or plan_path(path).exists()) and KnnlmDatastore.recognises(path):
        raise DatastoreError(
            f"{path} is a datastore of kNN-LM, RetoMaton or knn-transformers, which tells too little to be used as it "
            f"is: make one of this package of it, `fairseq-knn convert {path} NEW DATA --path LM.pt --task "
            f"language_modeling_knn` or `fairseq-knn convert {path} NEW --transformers MODEL`"
        )
    return ShardedDatastore.open(path)
