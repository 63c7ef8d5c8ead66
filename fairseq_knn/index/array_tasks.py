"""Building an index by several processes: one trains it, each adds a range of the keys, one merges.

The last step is :func:`~fairseq_knn.index.build.build_index`. No step but that one and the first changes what another
one reads, so the tasks need no lock, and a task that is started again does what is left of its own part.
"""

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_path
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.devices import resolve_device
from fairseq_knn.index.filling import Report, train
from fairseq_knn.index.making import make_part, trained_checkpoint
from fairseq_knn.index.merging import require_mergeable
from fairseq_knn.index.parts import Parts
from fairseq_knn.index.planning import plan_index
from fairseq_knn.index.record import IndexRecord, IndexSettings
from fairseq_knn.storage.atomic import directory_lock


def train_index(
    datastore: Datastore,
    spec: str = "auto",
    *,
    device: str = "auto",
    train_size: int | None = None,
    seed: int = 1,
    on_disk: bool = False,
    report: Report | None = None,
) -> None:
    """Train an index that is then built in parts. What is trained already, or finished, is left alone.

    Args:
        datastore, spec, device, train_size, seed, on_disk, report: see :func:`~fairseq_knn.index.build.build_index`.

    Raises:
        SearchIndexError: faiss does not know *spec*, there are too few keys for it, or its parts cannot be merged.
        UserError: a GPU is asked for and there is none, or the disk is full.
    """
    say = report or _say_nothing
    place = resolve_device("cpu" if on_disk and device == "auto" else device)
    settings, empty = plan_index(datastore, spec, place, on_disk=on_disk, train_size=train_size, seed=seed)
    require_mergeable(empty, settings.factory)
    with directory_lock(datastore.path):
        if not _is_finished(datastore, settings, say):
            datastore.require_keys()
            written = train(datastore, settings, empty, trained_checkpoint(datastore.path, settings), say)
            say(f"{settings.factory} is trained ({written.bytes / 1e6:,.1f} MB)")


def build_part(
    datastore: Datastore,
    spec: str = "auto",
    *,
    num_shards: int,
    shard_id: int,
    device: str = "auto",
    train_size: int | None = None,
    seed: int = 1,
    on_disk: bool = False,
    report: Report | None = None,
) -> None:
    """Add a range of the entries to a copy of the trained index. A part that is complete is left alone.

    Args:
        datastore, spec, device, train_size, seed, on_disk, report: see :func:`~fairseq_knn.index.build.build_index`;
            the same for all parts.
        num_shards: number of parts.
        shard_id: number of this one, from 0.

    Raises:
        SearchIndexError: the index is not trained, faiss does not know *spec*, or its parts cannot be merged.
        DatastoreError: a file of keys is damaged.
        UserError: a GPU is asked for and there is none, or the disk is full.
    """
    say = report or _say_nothing
    place = resolve_device("cpu" if on_disk and device == "auto" else device)
    settings, empty = plan_index(datastore, spec, place, on_disk=on_disk, train_size=train_size, seed=seed)
    require_mergeable(empty, settings.factory)
    if _is_finished(datastore, settings, say):
        return
    datastore.require_keys()
    trained = trained_checkpoint(datastore.path, settings)
    written = trained.written
    if written is None:
        raise SearchIndexError(
            f"{settings.factory} is not trained for {datastore.path}: run `fairseq-knn build-index {datastore.path} "
            "--train-only` first, once, with the same options"
        )
    parts = Parts(datastore.path, settings, written.sha256)
    make_part(datastore, parts.settings(num_shards, shard_id), parts, trained, say, quiet=report is None)


def _is_finished(datastore: Datastore, settings: IndexSettings, say: Report) -> bool:
    """Whether the datastore has an index of these settings, by the sizes of its files."""
    try:
        finished = IndexRecord.load(datastore).settings == settings
    except SearchIndexError:
        return False
    if finished:
        say(f"{index_path(datastore.path)} is finished already")
    return finished


def _say_nothing(_: str) -> None:
    pass
