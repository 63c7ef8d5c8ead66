"""Building the index of a datastore: train, add, measure, publish; by one process, or in parts."""

import faiss

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_lists_path, index_path, index_record_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.devices import resolve_device
from fairseq_knn.index.effort import choose_effort, usual_effort
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.filling import Report
from fairseq_knn.index.making import Made, make_index
from fairseq_knn.index.opening import exact_backend
from fairseq_knn.index.planning import plan_index
from fairseq_knn.index.recall import QUERIES, RecallTest
from fairseq_knn.index.record import IndexRecord, IndexSettings
from fairseq_knn.index.self_test import keys_found
from fairseq_knn.index.stored_keys import StreamedKeys
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
    on_disk: bool = False,
    num_shards: int | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> IndexRecord:
    """Build, measure and finish the index of a datastore.

    An interrupted build goes on where it was saved last, and gives the same index. An index that was built
    with the same settings is measured again if *nprobe* or *k* differ, and otherwise left alone. Parts that other
    processes have made (:mod:`~fairseq_knn.index.array_tasks`) are merged.

    Args:
        datastore: whose keys are indexed.
        spec: ``auto`` (see :mod:`~fairseq_knn.index.factory`), ``flat`` for exact search, or a faiss factory string.
        device: where it will be searched: ``cpu``, ``cuda`` or ``auto``.
        nprobe: lists to look into when recall is measured; ``None`` chooses, on a CPU, how many are enough, and how
            many candidates are ranked again (see :mod:`~fairseq_knn.index.effort`). It will be searched like that.
        k: number of neighbours when recall is measured.
        min_recall: the least share of the true k nearest keys that a finished index finds.
        train_size: number of keys to train with; ``None`` chooses it from the number of lists.
        seed: of the sample of keys to train with.
        on_disk: keep the lists on disk, in a file of their own, and rank candidates again by the stored keys; memory
            then need only hold a part of the index.
        num_shards: build it in so many parts, one after the other; ``None``: in those that were begun, all of which
            must be there; or else at once, or, on disk, in as many as are needed for a part to have 4 GiB.
        overwrite: build anew whatever is there.
        report: called with a line about every step; without it there are no progress bars either.

    Raises:
        SearchIndexError: faiss does not know *spec* or cannot build it like that, there are too few keys for it, a part
            is missing, or the index finds less than *min_recall*.
        DatastoreError: a file of keys is damaged.
        UserError: a GPU is asked for and there is none, or the disk is full.
    """
    place = resolve_device("cpu" if on_disk and device == "auto" else device)
    say = report or _say_nothing
    settings, empty = plan_index(datastore, spec, place, on_disk=on_disk, train_size=train_size, seed=seed)
    root = datastore.path
    with directory_lock(root):
        if overwrite:
            _remove_unfinished(datastore)
        finished = None if overwrite else _finished(datastore, settings)
        if finished is None:
            datastore.require_keys()
            made = make_index(datastore, settings, empty, num_shards, say, quiet=report is None)
        elif _is_measured(finished, empty, nprobe, k) and finished.recall >= min_recall:
            _remove_unfinished(datastore)
            say(f"{index_path(root)} is up to date: {_summary(finished)}")
            return finished
        else:
            say(f"{index_path(root)} is built already; measuring it")
            made = Made(read_index(index_path(root)), finished.file, finished.lists)
        keys = StreamedKeys(datastore) if on_disk else None
        search = FaissSearch(made.index, place, *usual_effort(nprobe, on_disk=on_disk), keys)
        test = RecallTest(exact_backend(datastore, resolve_device(device)), datastore, k, seed)
        chosen = nprobe is None and search.device.type == "cpu"
        result = choose_effort(search, test, min_recall) if chosen else test.measure(search)
        record = IndexRecord(
            settings=settings,
            bytes=made.file.bytes,
            sha256=made.file.sha256,
            nprobe=search.nprobe,
            k=k,
            k_factor=search.k_factor,
            recall=round(result.recall, 4),
            found=keys_found(search, datastore),
            faiss=faiss.__version__,
            lists_bytes=None if made.lists is None else made.lists.bytes,
            lists_sha256=None if made.lists is None else made.lists.sha256,
        )
        say(f"{_summary(record)}, {result.milliseconds:.1f} ms per 128 queries on {search.device.type}")
        _require(record, min_recall)
        if finished is None:
            # Without its record an index is not finished, so the old record goes before the old index.
            index_record_path(root).unlink(missing_ok=True)
            made.publish()
            if not on_disk:
                index_lists_path(root).unlink(missing_ok=True)
        record.save(datastore)
        _remove_unfinished(datastore)
        return record


def _remove_unfinished(datastore: Datastore) -> None:
    """Delete checkpoints and parts."""
    for path in (index_path, index_lists_path):
        for file in datastore.path.glob(f".{path(datastore.path).name}.*"):
            file.unlink(missing_ok=True)


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
    place = " on disk" if record.settings.on_disk else ""
    return (
        f"{record.settings.factory}, {record.total_bytes / 1e6:,.1f} MB{place}, recall@{record.k} "
        f"{record.recall:.3f}{effort} "
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
