"""The datastore: (key, target token) of every target position of a corpus, on disk."""

from fairseq_knn.datastore.manifest import Manifest, Plan
from fairseq_knn.datastore.merging import merge
from fairseq_knn.datastore.reader import Datastore
from fairseq_knn.datastore.writer import DatastoreWriter

__all__ = ["Datastore", "DatastoreWriter", "Manifest", "Plan", "merge"]
