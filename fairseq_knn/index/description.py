"""What an index is, told without reading the whole of it."""

from typing import Any

import faiss

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_lists_path, index_path, index_record_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.record import IndexRecord

_SCALARS = {
    faiss.ScalarQuantizer.QT_8bit: "SQ8",
    faiss.ScalarQuantizer.QT_6bit: "SQ6",
    faiss.ScalarQuantizer.QT_4bit: "SQ4",
    faiss.ScalarQuantizer.QT_fp16: "SQfp16",
    faiss.ScalarQuantizer.QT_bf16: "SQbf16",
}


def describe_index(datastore: Datastore) -> dict[str, Any]:
    """What is known of a datastore's index.

    Returns:
        ``state`` (``ready``, ``missing`` or ``unusable``), ``bytes`` of its files or ``None``; of an index that is not
        ready ``message`` says why, of others ``kind`` (a faiss factory string) and, if ``fairseq-knn build-index``
        made it, ``on_disk`` (whether its lists stay there), ``recall``, ``k``, ``nprobe``, ``trained_with`` (number of
        keys) and ``faiss`` (version).
    """
    recorded = index_record_path(datastore.path).exists()
    foreign = None if recorded else datastore.foreign_index
    paths = [foreign] if foreign else [index_path(datastore.path), index_lists_path(datastore.path)]
    sizes = [path.stat().st_size for path in paths if path.exists()]
    known: dict[str, Any] = {"state": "ready", "bytes": sum(sizes) if sizes else None}
    try:
        if foreign is not None:
            return {**known, "kind": kind_of(read_index(foreign, mapped=True))}
        # The digest of another toolkit's datastore takes reading all its values.
        record = IndexRecord.load(datastore) if datastore.plan is not None else IndexRecord.read(datastore)
    except SearchIndexError as error:
        return {**known, "state": "unusable" if recorded or foreign else "missing", "message": str(error)}
    return {
        **known,
        "kind": record.settings.factory,
        "on_disk": record.settings.on_disk,
        "recall": record.recall,
        "k": record.k,
        "nprobe": record.nprobe,
        "trained_with": record.settings.train_size,
        "faiss": record.faiss,
    }


def kind_of(index: faiss.Index) -> str:
    """The factory string of an index; where faiss's factory has no word for a part, the name of its class."""
    known = faiss.downcast_index(index)  # of parts of an index, faiss gives only the base class
    if isinstance(known, faiss.IndexPreTransform):
        parts = [_transform(faiss.downcast_VectorTransform(known.chain.at(i))) for i in range(known.chain.size())]
        return ",".join([*parts, kind_of(known.index)])
    if isinstance(known, faiss.IndexRefine):
        return f"{kind_of(known.base_index)},Refine({kind_of(known.refine_index)})"
    if isinstance(known, faiss.IndexIDMap):
        return f"IDMap,{kind_of(known.index)}"
    if isinstance(known, faiss.IndexIVF):
        quantiser = faiss.downcast_index(known.quantizer)
        coarse = "" if isinstance(quantiser, faiss.IndexFlat) else f"({kind_of(quantiser)})"
        return f"IVF{known.nlist}{coarse},{_codes(known)}"
    if isinstance(known, faiss.IndexHNSW):
        return f"HNSW{known.hnsw.nb_neighbors(1)},{kind_of(known.storage)}"
    return _codes(known)


def _codes(index: faiss.Index) -> str:
    """How an index, or the lists of an inverted file, keep their keys."""
    if isinstance(index, (faiss.IndexFlat, faiss.IndexIVFFlat)):
        return "Flat"
    if isinstance(index, (faiss.IndexIVFPQFastScan, faiss.IndexPQFastScan)):
        residual = "r" if getattr(index, "by_residual", False) else ""
        return f"PQ{index.pq.M}x{index.pq.nbits}fs{residual}"
    if isinstance(index, (faiss.IndexIVFPQ, faiss.IndexPQ)):
        return f"PQ{index.pq.M}" + ("" if index.pq.nbits == 8 else f"x{index.pq.nbits}")
    if isinstance(index, (faiss.IndexIVFScalarQuantizer, faiss.IndexScalarQuantizer)):
        return _SCALARS.get(index.sq.qtype, "SQ")
    return type(index).__name__


def _transform(transform: faiss.VectorTransform) -> str:
    if isinstance(transform, faiss.RemapDimensionsTransform):
        return f"Pad{transform.d_out}"
    if isinstance(transform, faiss.OPQMatrix):
        return f"OPQ{transform.M}_{transform.d_out}"
    if isinstance(transform, faiss.PCAMatrix):
        return f"PCA{transform.d_out}"
    return type(transform).__name__
