"""What one core does in a second: training an index, adding keys to it, searching it, comparing keys one by one.

python -m benchmarks.unit_costs [--dimension 1024] [--keys 131072]

Seconds are those of the processor, in one thread, so that what else runs on the machine counts little. The keys are
random, for none of this depends on what they are. Writes results/unit_costs.json, of which `python -m
benchmarks.projection` makes the tables of docs/scaling.md.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks import random_keys
from benchmarks.machine import describe
from fairseq_knn.datastore import Datastore
from fairseq_knn.index import open_backend
from fairseq_knn.index.factory import K_FACTOR
from fairseq_knn.index.recall import QUERIES

RESULTS = Path(__file__).parents[1] / "results" / "unit_costs.json"
# What `build-index` chooses, in memory and with --on-disk, and what GPUs can have.
FACTORIES = {
    "default": "PQ{quarter}x4fsr,Refine(SQfp16)",
    "on disk": "RaBitQ",
    "SQ4": "SQ4",
    "SQ8": "SQ8",
    "PQ64": "PQ64",
}
_FEW_LISTS, _MANY_LISTS = 64, 8192
_K = 8
_BATCH = 128


def measure(dimension: int, entries: int) -> dict[str, Any]:
    """All costs, in seconds of one core."""
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        random_keys.write(Path(directory) / "store", entries, dimension)
        datastore = Datastore.load(Path(directory) / "store")
        keys = datastore.keys(0, entries).astype(np.float32)
        exact = open_backend(datastore, backend="torch", device="cpu")
        rows = torch.from_numpy(keys[:QUERIES])
        truth = _seconds(lambda: exact.search(rows, _K + 1))
        size = sum(file.stat().st_size for file in (Path(directory) / "store").rglob("*.npy"))
    return {
        "dimension": dimension,
        "datastore_bytes_per_entry": size / entries,
        "train": [_train(keys, lists) for lists in (256, 512)],
        "nearest_list": _nearest_list(keys),
        "exact_per_query_and_key": truth / QUERIES / entries,
        "indexes": {name: _index(keys, tail.format(quarter=dimension // 4)) for name, tail in FACTORIES.items()},
    }


def _train(keys: np.ndarray, lists: int) -> dict[str, float]:
    """k-means of the lists, with 64 keys for each."""
    sample = keys[: 64 * lists]
    index = faiss.index_factory(keys.shape[1], f"IVF{lists},Flat")
    return {"lists": lists, "keys": len(sample), "seconds": _seconds(lambda: index.train(sample))}


def _nearest_list(keys: np.ndarray) -> dict[str, float]:
    """Finding the list of a key, which an addition and a search begin with."""
    quantizer = faiss.IndexFlatL2(keys.shape[1])
    quantizer.add(keys[:_MANY_LISTS])
    part = keys[: 1 << 14]
    return {"lists": _MANY_LISTS, "seconds": _seconds(lambda: quantizer.search(part, 1)) / len(part)}


def _index(keys: np.ndarray, tail: str) -> dict[str, Any]:
    """Learning the codes, adding keys to a few lists, the size of an entry, and searching with ever more lists."""
    index = faiss.index_factory(keys.shape[1], f"IVF{_FEW_LISTS},{tail}")
    lists = faiss.try_extract_index_ivf(index)
    lists.quantizer.add(keys[:_FEW_LISTS])
    codes = _seconds(lambda: index.train(keys[: 1 << 14]))
    empty = faiss.serialize_index(index).nbytes
    adding = _seconds(lambda: index.add(keys)) / len(keys)
    queries, searching = keys[: 4 * _BATCH] + np.float32(0.01), []
    if isinstance(index, faiss.IndexRefine):
        index.k_factor = K_FACTOR
    sizes = np.array([lists.get_list_size(each) for each in range(lists.nlist)])
    for nprobe in (4, 16, 64):
        lists.nprobe = nprobe
        probed = lists.quantizer.search(queries, nprobe)[1]
        seconds = _seconds(lambda: [index.search(part, _K) for part in np.split(queries, 4)])
        searching.append({"probed": float(sizes[probed].sum(1).mean()), "seconds": seconds / len(queries)})
    return {
        "factory": f"IVF..,{tail}",
        "lists": _FEW_LISTS,
        "train_codes": codes,
        "bytes_per_entry": (faiss.serialize_index(index).nbytes - empty) / len(keys),
        "add": adding,
        "search": searching,
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--keys", type=int, default=1 << 17)
    args = parser.parse_args()
    result = {"machine": describe(), **measure(args.dimension, args.keys)}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
