"""The datastore: (key, target token) of every target position of a corpus, on disk."""

from fairseq_knn.datastore.bare import BareDatastore
from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.datastore.knnlm import KnnlmDatastore
from fairseq_knn.datastore.manifest import LANGUAGE_MODEL, TRANSLATION, Manifest, Plan
from fairseq_knn.datastore.merging import merge
from fairseq_knn.datastore.sharded import ShardedDatastore
from fairseq_knn.datastore.writer import DatastoreWriter

__all__ = [
    "LANGUAGE_MODEL",
    "TRANSLATION",
    "BareDatastore",
    "Datastore",
    "DatastoreWriter",
    "KnnboxDatastore",
    "KnnlmDatastore",
    "Manifest",
    "Plan",
    "ShardedDatastore",
    "merge",
]
