"""What a datastore is, told from its small files alone."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.manifest import Plan, ShardRecord, array_names
from fairseq_knn.datastore.merging import committed, how_to_finish
from fairseq_knn.datastore.sharded import ShardedDatastore

_VALUE_BYTES = 4  # of an entry, in memory


def describe(datastore: Datastore) -> dict[str, Any]:
    """A finished datastore of any format.

    Returns:
        what ``fairseq-knn inspect --json`` prints, but for the index; other toolkits' formats lack much of it.
    """
    known: dict[str, Any] = {
        "format": "knn-box",
        "state": "finished",
        "entries": datastore.entries,
        "dimension": datastore.dimension,
        "key": datastore.key,
        "key_dtype": datastore.key_dtype.__name__,
        "dropped": [] if datastore.has_keys else ["keys"],
        "bytes": datastore.array_bytes,
        "memory": {
            "values": _VALUE_BYTES * datastore.entries,
            # As the torch backend keeps them: float16 keys and float32 norms.
            "exact_search": datastore.entries * (2 * datastore.dimension + 4) if datastore.has_keys else None,
        },
    }
    if isinstance(datastore, ShardedDatastore):
        known |= _of_plan(datastore.plan, datastore.manifest.shards)
    return known


def describe_begun(path: Path, plan: Plan) -> dict[str, Any]:
    """A datastore that is not finished; ``message`` says how to go on."""
    found = {shard: committed(path, shard) for shard in range(plan.shards)}
    there = {shard: record for shard, record in found.items() if record is not None}
    arrays = [(name, array) for record in there.values() for name, array in record.arrays.items()]
    return {
        "state": "unfinished",
        "message": how_to_finish(path, plan, there),
        "entries": sum(record.entries for record in there.values()),
        "dimension": max((record.dimension for record in there.values()), default=0) or None,
        "key_dtype": "float16",
        "dropped": [],
        "bytes": {
            name: sum(array.bytes for other, array in arrays if other == name) for name in array_names(there.values())
        },
        **_of_plan(plan, list(there.values())),
        "missing": [shard for shard in found if shard not in there],
    }


def _of_plan(plan: Plan, shards: Sequence[ShardRecord]) -> dict[str, Any]:
    """What only this package's format records, of a plan and the shards that are there."""
    return {
        "format": f"fairseq_knn {plan.schema}",
        "key": plan.key,
        "plan": {**asdict(plan), "shards": plan.shards},
        "sentences": sum(shard.sentences for shard in shards),
        "left_out": sum(shard.skipped for shard in shards),
        "shards": len(shards),
    }
