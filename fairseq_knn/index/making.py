"""Making the files of an index, under hidden names: at once, or of parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_lists_path, index_path
from fairseq_knn.datastore.merging import ranges
from fairseq_knn.errors import SearchIndexError
from fairseq_knn.index.checkpoint import Checkpoint, HiddenFile
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.filling import Report, add_keys, describe, fill, train, without_damaged_keys
from fairseq_knn.index.merging import merge_indexes, require_mergeable
from fairseq_knn.index.on_disk import attach_lists, list_sizes, name_lists, write_lists
from fairseq_knn.index.parts import Parts, PartSettings, usual_number
from fairseq_knn.index.record import IndexSettings, Written


@dataclass(frozen=True)
class Made:
    """An index with all keys, whose files have hidden names until it is published.

    Args:
        index: to be searched.
        file: ``index.faiss``.
        lists: ``index.ivfdata``, if the lists are on disk.
        hidden: its files and what they will be called.
    """

    index: faiss.Index
    file: Written
    lists: Written | None = None
    hidden: Sequence[tuple[HiddenFile, Path]] = ()

    def publish(self) -> None:
        """Give the files their names."""
        for file, target in self.hidden:
            file.publish(target)


@dataclass(frozen=True)
class _ListsSettings:
    """What a file of lists is made of: as :class:`PartSettings`, in whatever number of parts."""

    index: IndexSettings
    trained: str


def trained_checkpoint(root: Path, settings: IndexSettings) -> Checkpoint:
    """Where the trained index is kept that parts are made of."""
    return Checkpoint(root, settings, "trained")


def make_index(
    datastore: Datastore,
    settings: IndexSettings,
    empty: faiss.Index,
    num_shards: int | None,
    say: Report,
    *,
    quiet: bool,
) -> Made:
    """Make an index, or go on where that was interrupted.

    Args:
        datastore: whose keys are added.
        settings: what is being built.
        empty: the untrained index.
        num_shards: see :func:`~fairseq_knn.index.build.build_index`.
        say: called with a line about every step.
        quiet: without progress bars.

    Raises:
        SearchIndexError: a part is missing, or faiss cannot do what is asked for.
        DatastoreError: a file of keys is damaged.
        UserError: the disk is full.
    """
    root = datastore.path
    checkpoint, trained = Checkpoint(root, settings), trained_checkpoint(root, settings)
    published = (checkpoint, index_path(root))
    if not settings.on_disk:
        if (file := checkpoint.written) is not None and (index := checkpoint.load()) is not None:
            say(f"going on with {describe(settings)}: {index.ntotal:,} are in it")
            return Made(index, file, hidden=(published,))
        if num_shards is None and _begun(root, settings, trained) is None:
            index, file = fill(datastore, settings, empty, checkpoint, trained, say, quiet=quiet)
            return Made(index, file, hidden=(published,))
    files = _parts(datastore, settings, empty, num_shards, trained, say, quiet=quiet)
    assert trained.written is not None
    say(f"merging {len(files)} part{'s' if len(files) > 1 else ''}")
    if not settings.on_disk:
        index = merge_indexes(map(read_index, files), settings.factory)
        return Made(index, checkpoint.finish(index), hidden=(published,))
    made_of = _ListsSettings(settings, trained.written.sha256)
    lists = HiddenFile(root / f".{index_lists_path(root).name}.checkpoint", made_of)
    index, written = _with_lists(files, lists, quiet=quiet)
    name_lists(index, index_lists_path(root).name)
    return Made(index, checkpoint.finish(index), written, ((lists, index_lists_path(root)), published))


def make_part(
    datastore: Datastore, settings: PartSettings, parts: Parts, trained: Checkpoint, say: Report, *, quiet: bool
) -> None:
    """Make a part of an index, or go on where that was interrupted; one that is complete is left alone.

    Args:
        datastore: whose keys are added.
        settings: which part.
        parts: where it is kept.
        trained: the trained index, which is there.
        say: called with a line about what is done.
        quiet: without a progress bar.

    Raises:
        SearchIndexError, DatastoreError, UserError: see :func:`make_index`.
    """
    part, entries = parts.open(settings.num_shards, settings.shard_id), settings.entries
    name = f"part {settings.shard_id} of {settings.num_shards} of {describe(settings.index)}"
    if part.written is not None:
        say(f"{name} is there already")
        return
    with without_damaged_keys(part, trained):
        index = part.load()
        if index is None:
            index = trained.load()
            say(f"building {name}: {len(entries):,} keys from {entries.start:,} on")
        else:
            say(f"going on with {name}: {index.ntotal:,} of {len(entries):,} keys are in it")
        part.begin()
        add_keys(index, datastore, entries, settings.index.factory, part, quiet=quiet)
    part.finish(index)


def _begun(root: Path, settings: IndexSettings, trained: Checkpoint) -> int | None:
    """In how many parts this index was begun."""
    written = trained.written
    return None if written is None else Parts(root, settings, written.sha256).begun()


def _parts(
    datastore: Datastore,
    settings: IndexSettings,
    empty: faiss.Index,
    num_shards: int | None,
    trained: Checkpoint,
    say: Report,
    *,
    quiet: bool,
) -> list[Path]:
    """Files of all parts, each compared with its checksum; those of an array of processes must be there."""
    root = datastore.path
    begun, usual = _begun(root, settings, trained), usual_number(empty, settings.entries)
    number = num_shards or begun or usual
    require_mergeable(empty, settings.factory)
    parts = Parts(root, settings, train(datastore, settings, empty, trained, say).sha256)
    missing = parts.missing(number)
    if num_shards is None and begun is not None and missing and not (settings.on_disk and number == usual):
        raise SearchIndexError(
            f"of the {number} parts of the index of {root} {number - len(missing)} are there; missing: "
            f"{ranges(missing)}: run {_command(root, number, missing[0])} for each of them, with the options of the "
            "others"
        )
    for shard in missing:
        make_part(datastore, parts.settings(number, shard), parts, trained, say, quiet=quiet)
    files = []
    for shard in range(number):
        part = parts.open(number, shard)
        part.verify(f"make it again with {_command(root, number, shard)}")
        files.append(part.path)
    return files


def _command(root: Path, number: int, shard: int) -> str:
    return f"`fairseq-knn build-index {root} --num-shards {number} --shard-id {shard}`"


def _with_lists(files: Sequence[Path], lists: HiddenFile, *, quiet: bool) -> tuple[faiss.Index, Written]:
    """The index whose lists are those of all parts, in a file that is written unless it is there already."""
    parts = [read_index(file, mapped=True) for file in files]
    sizes = list_sizes(parts)
    written = lists.written
    if written is None:
        lists.begin()
        written = write_lists(parts, lists.path, quiet=quiet)
        lists.complete(written)
    attach_lists(parts[0], lists.path, sizes)
    return parts[0], written
