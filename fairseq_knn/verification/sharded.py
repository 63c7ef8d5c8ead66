"""Everything that is wrong with a datastore of this package."""

from collections.abc import Iterator
from pathlib import Path

from fairseq_knn.datastore.layout import ARRAYS, OPTIONAL_ARRAYS, array_path, commit_path, manifest_path
from fairseq_knn.datastore.manifest import TRANSLATION, Manifest, ShardRecord
from fairseq_knn.datastore.merging import begun, commit_record, committed, how_to_finish
from fairseq_knn.datastore.sharded import ShardedDatastore
from fairseq_knn.storage.digest import numbers_digest, short
from fairseq_knn.verification.content import (
    DocumentContent,
    Endings,
    KeyContent,
    LogProbContent,
    SentenceContent,
    Symbols,
    ValueContent,
)
from fairseq_knn.verification.findings import Advance, Check, Finding, Vocabulary, block_rows
from fairseq_knn.verification.shard_reader import ShardReader


class ShardedCheck(Check):
    """A datastore of this package, finished or not. Every file is read once.

    Args:
        path: its directory.
        vocabulary: compared with the one it was built with.

    Raises:
        DatastoreError: there is none, or its manifest or its plan is damaged.
    """

    datastore: ShardedDatastore | None

    def __init__(self, path: Path, vocabulary: Vocabulary | None = None) -> None:
        self._path, self._vocabulary = path, vocabulary
        plan = begun(path)
        if plan is None:
            self.datastore = ShardedDatastore.open(path, check_files=False)
            self._plan, self._dropped = self.datastore.plan, self.datastore.dropped
            self._records = dict(enumerate(self.datastore.manifest.shards))
        else:
            self._plan, self._dropped = plan, frozenset()
            found = {shard: commit_record(path, shard) for shard in range(plan.shards)}
            self._records = {shard: record for shard, record in found.items() if record is not None}
        special = Symbols(None) if vocabulary is None else vocabulary.symbols
        if self._plan.vocabulary == numbers_digest(self._plan.vocabulary_size):
            special = Symbols(None, padding=-1, eos=-1)
        self._symbols = Symbols(self._plan.vocabulary_size, special.padding, special.eos)
        self._endings = Endings(special.eos)
        self.bytes = sum(
            array.bytes
            for record in self._records.values()
            for name, array in record.arrays.items()
            if name not in self._dropped
        )

    def figures(self) -> str:
        records = self._records.values()
        return (
            f"{sum(r.entries for r in records):,} entries in {sum(r.sentences for r in records):,} sentences "
            f"({sum(r.skipped for r in records):,} left out), {len(records):,} shards"
        )

    def findings(self, advance: Advance) -> Iterator[Finding]:
        if self.datastore is None:
            whole = [shard for shard in self._records if committed(self._path, shard) is not None]
            yield Finding(how_to_finish(self._path, self._plan, whole))
        else:
            for fault in _manifest_faults(self.datastore.manifest):
                yield Finding(f"{manifest_path(self._path)} {fault}: restore it, or build the datastore again")
        if self._dropped:
            yield Finding(f"{', '.join(sorted(self._dropped))} were dropped on purpose: there are none to check", False)
        yield from self._vocabulary_findings()
        filled = [record for record in self._records.values() if record.entries]
        for name in sorted(OPTIONAL_ARRAYS):
            having = sum(name in record.arrays for record in filled)
            if 0 < having < len(filled):
                yield Finding(
                    f"{name} are there for {having:,} of {len(filled):,} shards, so none are used: another version of "
                    "this package wrote the other shards",
                    False,
                )
        for shard, record in self._records.items():
            remedy = self._remedy(shard)
            for name, fault in self._shard_faults(shard, record, advance):
                if name == "keys":
                    self.index_is_testable = False
                yield Finding(f"{array_path(self._path, name, shard)}: {fault}; {remedy}")
        for remark in self._endings.remarks():
            yield Finding(remark, False)

    def _remedy(self, shard: int) -> str:
        """How to get a shard back; a build that goes on writes what is not committed."""
        if self._dropped:
            return "restore it, or build the datastore again with --knn-overwrite"
        files = [commit_path(self._path, shard)]
        if self.datastore is not None:
            files.insert(0, manifest_path(self._path))
        names = " and ".join(str(file.relative_to(self._path)) for file in files)
        return f"restore it, or delete {names} and run the command that built the datastore again: it writes this shard"

    def _vocabulary_findings(self) -> Iterator[Finding]:
        given, plan = self._vocabulary, self._plan
        if given is not None and given.digest != plan.vocabulary:
            yield Finding(
                f"{self._path} was built with another target dictionary ({plan.vocabulary_size:,} symbols, "
                f"{short(plan.vocabulary)}) than {given.source} ({given.symbols.size:,} symbols, "
                f"{short(given.digest)}): name the one in its data directory (a multilingual task adds its languages "
                "to it, so there they always differ)"
            )

    def _shard_faults(self, shard: int, record: ShardRecord, advance: Advance) -> Iterator[tuple[str, str]]:
        """What is wrong with a shard, as (name of the array, fault)."""
        first, last = self._plan.sentence_range(shard)
        if record.sentences + record.skipped != last - first:
            yield (
                "sentences",
                f"its record counts {record.sentences:,} sentences and {record.skipped:,} left out, but the shard's "
                f"range {first:,} to {last - 1:,} has {last - first:,}",
            )
        arrays = set(ARRAYS if record.entries else ())
        if not arrays - OPTIONAL_ARRAYS <= set(record.arrays) <= arrays:
            yield "keys", f"the shard has {record.entries:,} entries, but its record names {sorted(record.arrays)}"
        files = ShardReader(self._path, shard, record, self._dropped, advance)
        keys, values, log_probs = KeyContent(), ValueContent(self._symbols), LogProbContent()
        sentences, documents = SentenceContent(first, last, record.sentences), DocumentContent()
        for blocks in files.blocks(block_rows(2 * max(1, record.dimension))):
            if "keys" in blocks:
                keys.add(blocks["keys"])
            if "values" in blocks:
                values.add(blocks["values"])
            if "log_probs" in blocks:
                log_probs.add(blocks["log_probs"])
            if "documents" in blocks:
                documents.add(blocks["documents"])
            if "sentences" in blocks:
                starts = sentences.add(blocks["sentences"], blocks.get("positions"))
                # Only translations end with the block they are in.
                if "values" in blocks and self._plan.kind == TRANSLATION:
                    self._endings.add(starts, blocks["values"])
        self._endings.end_shard()
        yield from files.faults
        for name, needed, faults in (
            ("keys", {"keys"}, keys.faults),
            ("values", {"values"}, values.faults),
            ("sentences", {"sentences"}, sentences.faults),
            ("positions", {"sentences", "positions"}, sentences.position_faults),
            ("log_probs", {"log_probs"}, log_probs.faults),
            ("documents", {"documents"}, documents.faults),
        ):
            if needed <= files.complete:
                yield from ((name, fault) for fault in faults())


def _manifest_faults(manifest: Manifest) -> Iterator[str]:
    """Where the totals disagree with the shards."""
    shards, plan = manifest.shards, manifest.plan
    for what, told, found in (
        ("shards", len(shards), plan.shards),
        ("entries", manifest.entries, sum(shard.entries for shard in shards)),
        ("sentences left out", manifest.skipped, sum(shard.skipped for shard in shards)),
    ):
        if told != found:
            yield f"counts {told:,} {what}, but there are {found:,}"
    dimensions = {shard.dimension for shard in shards if shard.entries}
    if dimensions != {manifest.dimension}:
        yield f"names keys of dimension {manifest.dimension}, but the shards have {sorted(dimensions)}"
