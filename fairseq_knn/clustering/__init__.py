"""Clusters of a datastore's entries, which RetoMaton's states are."""

from fairseq_knn.clustering.building import build_clusters
from fairseq_knn.clustering.clusters import Clusters, clusters_of
from fairseq_knn.clustering.importing import import_members
from fairseq_knn.clustering.settings import Greedy, KMeans, Settings

__all__ = ["Clusters", "Greedy", "KMeans", "Settings", "build_clusters", "clusters_of", "import_members"]
