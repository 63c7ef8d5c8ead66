"""Building the index of a datastore: train, add, measure, publish."""

import faiss
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_path, index_record_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.checkpoint import Checkpoint
from fairseq_knn.index.devices import resolve_device
from fairseq_knn.index.effort import MOST_LISTS, choose_effort
from fairseq_knn.index.factory import K_FACTOR, choose_factory, training_size
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.faiss_files import explain_faiss_errors, read_index
from fairseq_knn.index.filling import Report, fill
from fairseq_knn.index.opening import exact_backend
from fairseq_knn.index.recall import QUERIES, RecallTest
from fairseq_knn.index.record import IndexRecord, IndexSettings
from fairseq_knn.index.self_test import keys_found
from fairseq_knn.storage.atomic import directory_lock


def build_index(
    datastore: Datastore,
    spec: str = "auto",
    *,
    device: str = "auto",
    nprobe: int | None = None,
    k: int = 8,
    min_recall: float = 0.95,
    train_size: int | None = None,
    seed: int = 1,
    overwrite: bool = False,
    report: Report | None = None,
) -> IndexRecord:
    """Build, measure and finish the index of a datastore.

    An interrupted build goes on where it was saved last, and gives the same index. An index that was built
    with the same settings is measured again if *nprobe* or *k* differ, and otherwise left alone.

    Args:
        datastore: whose keys are indexed.
        spec: ``auto`` (see :func:`~fairseq_knn.index.factory.choose_factory`), ``flat`` for exact search,
            or a faiss factory string.
        device: where it will be searched: ``cpu``, ``cuda`` or ``auto``.
        nprobe: lists to look into when recall is measured; ``None`` chooses, on a CPU, how many are enough, and how
            many candidates are ranked again (see :mod:`~fairseq_knn.index.effort`). It will be searched like that.
        k: number of neighbours when recall is measured.
        min_recall: the least share of the true k nearest keys that a finished index finds.
        train_size: number of keys to train with; ``None`` chooses it from the number of lists.
        seed: of the sample of keys to train with.
        overwrite: build anew whatever is there.
        report: called with a line about every step; without it there are no progress bars either.

    Raises:
        SearchIndexError: faiss does not know *spec*, there are too few keys for it, or the index finds
            less than *min_recall*.
        DatastoreError: a file of keys is damaged.
        UserError: a GPU is asked for and there is none, or the disk is full.
    """
    place = resolve_device(device)
    say = report or _say_nothing
    factory = _factory(datastore, spec, place)
    empty = _create(datastore, factory)
    settings = IndexSettings(
        factory=factory,
        entries=datastore.entries,
        dimension=datastore.dimension,
        datastore=datastore.digest,
        seed=seed,
        train_size=_train_size(datastore, empty, train_size),
    )
    with directory_lock(datastore.path):
        finished = None if overwrite else _finished(datastore, settings)
        checkpoint = Checkpoint(datastore.path, settings, fresh=overwrite)
        if finished is None:
            datastore.require_keys()
            index, digest = fill(datastore, settings, empty, checkpoint, say, quiet=report is None)
            size = checkpoint.bytes
        elif _is_measured(finished, empty, nprobe, k) and finished.recall >= min_recall:
            checkpoint.remove()
            say(f"{index_path(datastore.path)} is up to date: {_summary(finished)}")
            return finished
        else:
            say(f"{index_path(datastore.path)} is built already; measuring it")
            index, digest, size = read_index(index_path(datastore.path)), finished.sha256, finished.bytes
        search = FaissSearch(index, place, nprobe or MOST_LISTS, K_FACTOR)
        test = RecallTest(exact_backend(datastore, place), datastore, k, seed)
        chosen = nprobe is None and search.device.type == "cpu"
        result = choose_effort(search, test, min_recall) if chosen else test.measure(search)
        record = IndexRecord(
            settings=settings,
            bytes=size,
            sha256=digest,
            nprobe=search.nprobe,
            k=k,
            k_factor=search.k_factor,
            recall=round(result.recall, 4),
            found=keys_found(search, datastore),
            faiss=faiss.__version__,
        )
        say(f"{_summary(record)}, {result.milliseconds:.1f} ms per 128 queries on {search.device.type}")
        _require(record, min_recall)
        if finished is None:
            # Without its record an index is not finished, so the old record goes before the old index.
            index_record_path(datastore.path).unlink(missing_ok=True)
            checkpoint.publish()
        record.save(datastore)
        checkpoint.remove()
        return record


def _factory(datastore: Datastore, spec: str, device: torch.device) -> str:
    if spec == "auto":
        return choose_factory(datastore.entries, datastore.dimension, device)
    return "Flat" if spec == "flat" else spec


def _create(datastore: Datastore, factory: str) -> faiss.Index:
    remedy = "pass --knn-index auto, flat, or a faiss factory string such as IVF1024,SQ8"
    with explain_faiss_errors(f"make an index {factory!r} for keys of dimension {datastore.dimension}", remedy):
        return faiss.index_factory(datastore.dimension, factory)


def _train_size(datastore: Datastore, empty: faiss.Index, wanted: int | None) -> int:
    if empty.is_trained:
        return 0
    if wanted is None:
        lists = faiss.try_extract_index_ivf(empty)
        return training_size(datastore.entries, 0 if lists is None else lists.nlist)
    return min(wanted, datastore.entries)


def _finished(datastore: Datastore, settings: IndexSettings) -> IndexRecord | None:
    """The record of the datastore's index if it has these settings and its checksum."""
    try:
        record = IndexRecord.load(datastore)
        if record.settings != settings:
            return None
        record.verify(datastore)
    except SearchIndexError:
        return None
    return record


def _is_measured(finished: IndexRecord, index: faiss.Index, nprobe: int | None, k: int) -> bool:
    """Whether an index was measured as it is to be measured now."""
    lists = faiss.try_extract_index_ivf(index)
    same_lists = nprobe is None or lists is None or finished.nprobe == min(nprobe, lists.nlist)
    return finished.k == k and same_lists


def _summary(record: IndexRecord) -> str:
    effort = "" if record.nprobe is None else f" with nprobe {record.nprobe}"
    return (
        f"{record.settings.factory}, {record.bytes / 1e6:,.1f} MB, recall@{record.k} {record.recall:.3f}{effort} "
        f"({min(QUERIES, record.settings.entries)} stored keys against exact search)"
    )


def _require(record: IndexRecord, min_recall: float) -> None:
    if record.recall >= min_recall:
        return
    effort, remedy = "", ""
    if record.nprobe is not None:
        effort, remedy = f" with --knn-nprobe {record.nprobe}", "raise --knn-nprobe, "
    raise SearchIndexError(
        f"{record.settings.factory} finds {record.recall:.3f} of the true {record.k} nearest keys{effort}, less than "
        f"--min-recall {min_recall:g}: {remedy}name another --knn-index or lower --min-recall; what is built is kept "
        "and not built again with the same --knn-index"
    )


def _say_nothing(_: str) -> None:
    pass
