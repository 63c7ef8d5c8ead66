"""Writing a datastore: shard by shard, resumable at any point, by one process or by many."""

import shutil
from dataclasses import asdict
from pathlib import Path

from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.datastore.layout import (
    clusters_path,
    dropped_path,
    index_lists_path,
    index_path,
    index_record_path,
    manifest_path,
    plan_path,
    sample_path,
    shards_directory,
)
from fairseq_knn.datastore.manifest import Manifest, Plan
from fairseq_knn.datastore.merging import committed, merge, read_plan
from fairseq_knn.datastore.shard_writer import ShardWriter
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.atomic import (
    PARTIAL_SUFFIX,
    directory_lock,
    explain_os_errors,
    make_directory,
    partial_path,
    remove_partials,
    write_json,
)


class DatastoreWriter:
    """One process's part in building a datastore.

    Process ``rank`` of ``world`` writes the shards ``i`` with ``i % world == rank``; a shard that is
    committed already is not written again. With one process :meth:`finish` writes the manifest, with
    several :func:`merge` does when all are done.

    Args:
        path: directory of the datastore.
        plan: what is to be built.
        rank, world: which part is this process's.
        overwrite: replace a finished datastore.

    Raises:
        DatastoreError: there is a finished datastore and *overwrite* is off, or an unfinished one of
            another plan, or the split has no sentences.
        UserError: the directory cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        plan: Plan,
        *,
        rank: int = 0,
        world: int = 1,
        overwrite: bool = False,
    ):
        self.root, self.plan, self.rank, self.world = Path(path), plan, rank, world
        if plan.sentences == 0:
            raise DatastoreError(
                f"the split {plan.split!r} has no sentences, so there is nothing to put into {path}: "
                "check the data directory and --gen-subset"
            )
        make_directory(self.root)
        with directory_lock(self.root):
            self._prepare(overwrite)
        self._remove_leftovers()

    def _prepare(self, overwrite: bool) -> None:
        if KnnboxDatastore.recognises(self.root):
            raise DatastoreError(
                f"{self.root} holds a datastore of another toolkit: choose another --knn-datastore-path"
            )
        if manifest_path(self.root).exists():
            if not overwrite:
                raise DatastoreError(
                    f"{self.root} holds a finished datastore: choose another --knn-datastore-path, or "
                    "pass --knn-overwrite to replace it"
                )
            self._remove_finished()
        self._remove_trash()
        make_directory(shards_directory(self.root))
        # A finished datastore without its keys that has lost its manifest is built again: with keys.
        for stale in (dropped_path(self.root), sample_path(self.root)):
            stale.unlink(missing_ok=True)
        path = plan_path(self.root)
        remove_partials(path)
        started = read_plan(self.root)
        if started is None:
            write_json(path, asdict(self.plan))
        elif difference := started.difference(self.plan):
            raise DatastoreError(
                f"{self.root} holds an unfinished datastore of another plan (the one begun against this "
                f"one: {difference}): finish it with the settings it was started with, delete it, or "
                "choose another --knn-datastore-path"
            )

    def _remove_finished(self) -> None:
        # The shards lose their name before the manifest goes: an interruption at any point leaves either a
        # finished datastore without files, which is replaced again, or nothing. Old shards are never
        # taken for new ones.
        with explain_os_errors(self.root):
            if shards_directory(self.root).exists():
                shards_directory(self.root).rename(partial_path(shards_directory(self.root)))
            clusters = clusters_path(self.root, "*")
            stale = [f"*{path(self.root).name}*" for path in (index_record_path, index_path, index_lists_path)]
            # With what interrupted runs have left of them: ".index.faiss.*", ".clusters-NAME.*".
            for pattern in (*stale, clusters.name, f".{clusters.stem}"):
                for file in self.root.glob(pattern):
                    file.unlink(missing_ok=True)
            manifest_path(self.root).unlink()

    def _remove_trash(self) -> None:
        """Delete the shards that an overwriting run, this one or an interrupted one, has put aside."""
        with explain_os_errors(self.root):
            for trash in self.root.glob(f".{shards_directory(self.root).name}.*{PARTIAL_SUFFIX}"):
                shutil.rmtree(trash)

    def _remove_leftovers(self) -> None:
        """Delete what this rank's interrupted runs left half-written."""
        for leftover in shards_directory(self.root).glob(f".*{PARTIAL_SUFFIX}"):
            number = leftover.name.partition("-")[2].partition(".")[0]
            if number.isdigit() and int(number) in self.own:
                leftover.unlink(missing_ok=True)

    @property
    def own(self) -> range:
        """Shards that are this process's to write."""
        return range(self.rank, self.plan.shards, self.world)

    def pending(self) -> list[int]:
        """Shards of this process that are not committed yet."""
        return [shard for shard in self.own if committed(self.root, shard) is None]

    def open_shard(self, shard: int) -> ShardWriter:
        """Start writing *shard*."""
        first, last = self.plan.sentence_range(shard)
        return ShardWriter(self.root, shard, first, last, self.plan.vocabulary_size)

    def finish(self) -> Manifest | None:
        """Write the manifest when this process was the only one; ``None`` when :func:`merge` has to."""
        return merge(self.root) if self.world == 1 else None
