"""Everything that is wrong with the index of a datastore."""

from collections.abc import Callable, Iterator

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_lists_path, index_path, index_record_path
from fairseq_knn.errors import UserError
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.verification.findings import Finding


def index_bytes(datastore: Datastore) -> int:
    """Bytes that :func:`index_findings` reads for the checksum."""
    if not index_record_path(datastore.path).exists():
        return 0
    files = (index_path(datastore.path), index_lists_path(datastore.path))
    return sum(file.stat().st_size for file in files if file.exists())


def index_findings(
    datastore: Datastore, advance: Callable[[int], object], *, testable: bool = True
) -> Iterator[Finding]:
    """Compare an index with its datastore and its checksum, and look stored keys up in it.

    Args:
        datastore: whose index it is.
        advance: called with the number of bytes after every block.
        testable: whether the keys are such that they can be looked up.
    """
    if not index_record_path(datastore.path).exists() and datastore.foreign_index is None:
        if datastore.has_keys:
            yield Finding("there is no index: the datastore can be searched exactly (--knn-backend torch)", fault=False)
        else:
            yield _fault(datastore, f"{datastore.path} has neither keys nor an index, so nothing can be searched")
        return
    try:
        record = IndexRecord.load(datastore) if index_record_path(datastore.path).exists() else None
        if record is not None:
            record.verify(datastore, advance)
        if testable:
            yield Finding(_tested(datastore, record), fault=False)
        else:
            yield Finding("no keys were looked up in the index, for they are damaged", fault=False)
    except (UserError, OSError) as error:
        yield _fault(datastore, str(error))


def _tested(datastore: Datastore, record: IndexRecord | None) -> str:
    """Look stored keys up, as opening the index for translation does.

    Raises:
        UserError: they are not found, or the index cannot be opened.
    """
    # faiss brings a second OpenMP runtime: it is loaded only where it is used.
    from fairseq_knn.index.faiss_backend import FaissBackend

    backend = FaissBackend(datastore, torch.device("cpu"), None, mapped=True)
    of = "" if record is None else f" ({record.settings.factory}, recall@{record.k} {record.recall:.3f} when built)"
    return f"stored keys find themselves in {backend.path.name}{of}"


def _fault(datastore: Datastore, text: str) -> Finding:
    if datastore.has_keys:
        return Finding(text)
    return Finding(
        f"{text} (it cannot be built again without the keys, which were dropped: restore it, or build the datastore "
        "again with --knn-overwrite)"
    )
