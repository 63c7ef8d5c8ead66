"""Everything that is wrong with the clusters of a datastore."""

from collections.abc import Iterator

from fairseq_knn.clustering import Clusters, clusters_of
from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import clusters_path
from fairseq_knn.errors import UserError
from fairseq_knn.verification.findings import Advance, Finding


def clusters_bytes(datastore: Datastore) -> int:
    """Bytes that :func:`clusters_findings` reads."""
    return sum(clusters_path(datastore.path, name).stat().st_size for name in clusters_of(datastore))


def clusters_findings(datastore: Datastore, advance: Advance) -> Iterator[Finding]:
    """Read all clusters, with their checksums, and compare them with the datastore.

    Args:
        datastore: whose clusters they are.
        advance: called with the number of bytes after every file.
    """
    for name in clusters_of(datastore):
        try:
            clusters = Clusters.load(datastore, name)
            yield Finding(f"every entry is in one of the clusters {name!r}: {clusters.summary()}", fault=False)
        except UserError as error:
            yield Finding(str(error))
        advance(clusters_path(datastore.path, name).stat().st_size)
