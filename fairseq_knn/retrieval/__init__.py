"""From queries to neighbours: one or several datastores searched as one."""

from fairseq_knn.retrieval.neighbours import Neighbours
from fairseq_knn.retrieval.retriever import Retriever

__all__ = ["Neighbours", "Retriever"]
