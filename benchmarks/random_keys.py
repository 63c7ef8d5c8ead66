"""A datastore of random keys: for searches that are exact, whose time does not depend on the keys.

python -m benchmarks.random_keys STORE --dimension 1024 --entries 3600000
"""

import argparse
from pathlib import Path

import numpy as np

from fairseq_knn.datastore import DatastoreWriter, Plan

_SHARD = 65536  # entries


def write(path: Path, entries: int, dimension: int) -> None:
    """Write a datastore of normally distributed keys; every entry is a sentence of its own."""
    plan = Plan(
        model="",
        model_name="none",
        vocabulary="",
        vocabulary_size=1,
        key="decoder_output",
        split="random",
        data="",
        sentences=entries,
        shard_sentences=_SHARD,
    )
    random = np.random.default_rng(1)
    writer = DatastoreWriter(path, plan)
    for number in writer.pending():
        sentences = range(*plan.sentence_range(number))
        shard = writer.open_shard(number)
        keys = random.standard_normal((len(sentences), dimension), dtype=np.float32)
        shard.add(sentences, [1] * len(sentences), keys, np.zeros(len(sentences), np.int32))
        shard.commit()
    writer.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("--entries", type=int, default=3_600_000)
    parser.add_argument("--dimension", type=int, default=1024)
    args = parser.parse_args()
    write(args.store, args.entries, args.dimension)


if __name__ == "__main__":
    main()
