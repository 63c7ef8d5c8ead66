"""From committed shards to a finished datastore."""

from collections.abc import Collection, Iterable
from pathlib import Path

from fairseq_knn.datastore.layout import array_path, commit_path, manifest_path, plan_path
from fairseq_knn.datastore.manifest import Manifest, Plan, ShardRecord
from fairseq_knn.datastore.sharded import ShardedDatastore
from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.storage.atomic import read_json, remove_partials, write_json


def read_plan(root: Path) -> Plan | None:
    """The plan of the datastore that was begun in *root*, or ``None`` when none was.

    Raises:
        DatastoreError: the plan is damaged.
    """
    try:
        return Plan.from_json(read_json(plan_path(root)), str(plan_path(root)))
    except (FileNotFoundError, NotADirectoryError):
        return None


def begun(root: Path) -> Plan | None:
    """The plan of the datastore that is unfinished in *root*; ``None`` when it is finished, or there is none.

    Raises:
        DatastoreError: the plan is damaged.
    """
    return None if manifest_path(root).exists() else read_plan(root)


def commit_record(root: Path, shard: int) -> ShardRecord | None:
    """The record of a shard, or ``None`` when it is not committed."""
    commit = commit_path(root, shard)
    try:
        return ShardRecord.from_json(read_json(commit), str(commit))
    except (FileNotFoundError, UserError):
        return None


def committed(root: Path, shard: int) -> ShardRecord | None:
    """The record of a shard, or ``None`` when it is not committed or its files are not as committed."""
    record = commit_record(root, shard)
    if record is None:
        return None
    for name, array in record.arrays.items():
        path = array_path(root, name, shard)
        if not path.exists() or path.stat().st_size != array.bytes:
            return None
    return record


def how_to_finish(root: Path, plan: Plan, shards: Collection[int]) -> str:
    """A sentence about an unfinished datastore, of which *shards* are there."""
    missing = [shard for shard in range(plan.shards) if shard not in shards]
    if not missing:
        return f"all {plan.shards} shards of {root} are there, but it is not finished: run `fairseq-knn merge {root}`"
    return (
        f"{root} is unfinished: it has {plan.shards - len(missing)} of {plan.shards} shards; missing: "
        f"{ranges(missing)}; run the command that builds it again (for each rank that did not finish), and after a "
        f"build by several ranks `fairseq-knn merge {root}`"
    )


def merge(path: Path | str) -> Manifest:
    """Check that every shard is there and finish the datastore.

    Returns:
        the manifest, which is then on disk; a finished datastore's is returned as it is.

    Raises:
        DatastoreError: shards are missing (they are named), disagree, or hold no entry at all; or the
            finished datastore is damaged.
    """
    root = Path(path)
    if manifest_path(root).exists():
        return ShardedDatastore.open(root).manifest
    plan = read_plan(root)
    if plan is None:
        raise DatastoreError(
            f"{root} holds no datastore, neither finished nor begun: build one with --knn-mode build_datastore"
        )
    records = [committed(root, shard) for shard in range(plan.shards)]
    missing = [shard for shard, record in enumerate(records) if record is None]
    if missing:
        raise DatastoreError(
            f"{root} has {plan.shards - len(missing)} of {plan.shards} shards; missing: "
            f"{ranges(missing)}: run the build command again (for each rank that did not finish), then "
            "merge"
        )
    shards = tuple(record for record in records if record is not None)
    dimensions = {record.dimension for record in shards if record.entries}
    if not dimensions:
        raise DatastoreError(
            f"{root} has no entries: all {plan.sentences} sentences of {plan.split!r} were too long for "
            "the model; check --max-source-positions, --max-target-positions and the data, delete "
            f"{root} and build it again"
        )
    if len(dimensions) > 1:
        raise DatastoreError(
            f"the shards of {root} have keys of different dimensions {sorted(dimensions)}: delete it and build it again"
        )
    manifest = Manifest(
        plan=plan,
        entries=sum(record.entries for record in shards),
        dimension=dimensions.pop(),
        key_dtype="float16",
        value_dtype=shards[0].value_dtype,
        skipped=sum(record.skipped for record in shards),
        shards=shards,
    )
    remove_partials(manifest_path(root))
    write_json(manifest_path(root), manifest.to_json())
    return manifest


def ranges(numbers: Iterable[int]) -> str:
    """``[0, 1, 2, 5]`` as ``0-2, 5`` (Slurm's notation for array tasks)."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else f"{a}" for a, b in parts)
