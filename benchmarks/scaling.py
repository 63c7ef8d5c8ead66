"""What a large index costs, in units: seconds a list, keys a second, bytes a key, milliseconds a search.

python -m benchmarks.scaling WORK [--entries 200000] [--dimension 1024] [--json FILE]

Measures, on random keys, the index that is chosen by itself and the one whose lists stay on disk. The figures are for a
calculation of what 100 million keys and more take; how many neighbours are found is not among them, for random keys
have none. Every build is a process of its own, so that its memory can be told. Seconds are those of one core's time, so
that what else a machine does changes them little; only where several cores add keys, and where keys come from the disk,
they are the clock's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks import machine, random_keys
from benchmarks.memory import resident
from fairseq_knn.datastore import Datastore
from fairseq_knn.index.factory import choose_factory, choose_on_disk_factory
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.filling import train
from fairseq_knn.index.making import make_index, trained_checkpoint
from fairseq_knn.index.on_disk import read_lists
from fairseq_knn.index.planning import plan_index
from fairseq_knn.index.reranking import nearest_by_keys
from fairseq_knn.index.sampling import sample_entries
from fairseq_knn.index.stored_keys import StreamedKeys

_BATCH, _K, _PARTS, _PASSES = 128, 8, 4, 5
_ADDED = 20_000  # keys
_NPROBES = (4, 16, 64)
_CANDIDATES = (32, 64, 128)
_CPU = torch.device("cpu")

Row = dict[str, Any]


def _build(store: Path, spec: str, on_disk: bool, threads: int) -> Row:
    """In a process of its own: train and make the whole in parts; seconds and memory."""
    datastore = Datastore.load(store)
    root = datastore.path
    for file in (*root.glob("index.*"), *root.glob(".index.*")):
        file.unlink()
    settings, empty = plan_index(datastore, spec, _CPU, on_disk=on_disk)
    lists = faiss.try_extract_index_ivf(empty)
    with _PeakMemory() as peak:
        began = time.process_time()
        train(datastore, settings, empty, trained_checkpoint(root, settings), print)
        trained = time.process_time()
        moments: list[float] = []

        def note(line: str) -> None:
            print(line, flush=True)
            moments.append(time.process_time())

        made = make_index(datastore, settings, empty, _PARTS, note, quiet=True)
        ended = time.process_time()
    made.publish()
    size = made.file.bytes + (made.lists.bytes if made.lists else 0)
    return {
        "index": settings.factory,
        "on_disk": on_disk,
        "entries": datastore.entries,
        "dimension": datastore.dimension,
        "trained_with": settings.train_size,
        "lists": 0 if lists is None else lists.nlist,
        "training_s": round(trained - began, 1),
        "parts_s": round(moments[-1] - trained, 1),
        "merging_mb_per_s": round(size / 1e6 / (ended - moments[-1])),
        "bytes_per_key": round(size / datastore.entries, 1),
        "peak_own_mb": round(peak.bytes / 1e6),
        **_add(store, spec, on_disk, threads),
    }


def _add(store: Path, spec: str, on_disk: bool, threads: int) -> Row:
    """Keys that are added a second to what was trained before; by the clock of the CPU if one thread does it."""
    clock = time.process_time if threads == 1 else time.perf_counter
    datastore = Datastore.load(store)
    settings, _ = plan_index(datastore, spec, _CPU, on_disk=on_disk)
    index = trained_checkpoint(datastore.path, settings).load()
    keys = datastore.keys(0, _ADDED).astype(np.float32)
    began = clock()
    index.add(keys)
    return {f"keys_per_s_{threads}_threads": round(len(keys) / (clock() - began))}


class _PeakMemory:
    """Most bytes of its own that a process has while the block runs, apart from files it maps."""

    def __enter__(self) -> "_PeakMemory":
        self._over = threading.Event()
        self.bytes, self._watch = 0, threading.Thread(target=self._look)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, resident()[0])

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()


def _searches(store: Path, on_disk: bool, threads: int) -> Iterator[Row]:
    """Milliseconds of a search with 128 queries, by where the index is and how many lists are looked into; those of the
    CPU, except where keys are read from the disk."""
    torch.set_num_threads(threads)
    datastore = Datastore.load(store)
    queries = torch.from_numpy(datastore.gather_keys(sample_entries(datastore.entries, _BATCH, seed=7))).float()
    file = store / "index.faiss"
    for place in ("disk", "memory") if on_disk else ("mapped", "memory"):
        index = read_index(file, mapped=place == "mapped")
        if on_disk and place == "memory":
            read_lists(index, file)
        for nprobe in _NPROBES:
            search = FaissSearch(index, _CPU, nprobe, 8)
            probed = faiss.extract_index_ivf(_inverted(index))
            seconds = _median(lambda search=search: search.search(queries, _K))
            yield {
                "what": f"search, lists {'on disk' if place == 'disk' else place}",
                "nprobe": search.nprobe,
                "keys_probed": round(datastore.entries * probed.nprobe / probed.nlist),
                "ms": round(1000 * seconds, 2),
            }
    if not on_disk:
        return
    keys, random = StreamedKeys(datastore), np.random.default_rng(1)
    for candidates in _CANDIDATES:
        ids = torch.from_numpy(random.integers(datastore.entries, size=(_BATCH, candidates)))
        for state in ("cold", "warm"):
            if state == "cold":
                _forget(store)
            began = time.perf_counter()
            nearest_by_keys(keys, queries, ids, _K)
            seconds = time.perf_counter() - began
            if state == "warm":
                seconds = _median(lambda ids=ids: nearest_by_keys(keys, queries, ids, _K))
            yield {"what": f"ranking again, keys {state}", "candidates": candidates, "ms": round(1000 * seconds, 2)}


def _inverted(index: faiss.Index) -> faiss.Index:
    return faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index


def _median(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(_PASSES):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def _forget(store: Path) -> None:
    """Ask the system to drop its copy of the keys, which is the disk's then, and not that of a disk's own cache."""
    for path in store.glob("shards/keys-*.npy"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(work: Path, entries: int, dimension: int) -> dict[str, Any]:
    """All figures for one size; the datastore is made first, and deleted in the end."""
    store = work / f"random-{dimension}-{entries}"
    if not (store / "manifest.json").exists():
        random_keys.write(store, entries, dimension)
    building, searching = [], []
    specs = ((choose_factory(entries, dimension, _CPU), False), (choose_on_disk_factory(entries, dimension), True))
    for spec, on_disk in specs:
        row = _child("build", store, spec, on_disk, 1)[-1]
        if (threads := len(os.sched_getaffinity(0))) > 1:
            row |= _child("add", store, spec, on_disk, threads)[-1]
        building.append(row)
        searching += [{"index": spec, **row} for row in _child("search", store, spec, on_disk, 1)]
    shutil.rmtree(store)
    return {"machine": machine.describe(), "building": building, "searching": searching}


def _child(step: str, store: Path, spec: str, on_disk: bool, threads: int) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.scaling", str(store), "--step", step, "--spec", spec]
    command += ["--threads", str(threads), *(["--on-disk"] if on_disk else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def markdown(results: dict[str, Any]) -> str:
    """The figures as two tables."""
    lines = [f"Machine: {results['machine']}.", ""]
    for name in ("building", "searching"):
        rows = results[name]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="where the keys are written to")
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--step", choices=("build", "add", "search"), help=argparse.SUPPRESS)
    parser.add_argument("--spec", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--on-disk", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "build":
        print(json.dumps(_build(args.work, args.spec, args.on_disk, args.threads)))
    elif args.step == "add":
        print(json.dumps(_add(args.work, args.spec, args.on_disk, args.threads)))
    elif args.step == "search":
        for row in _searches(args.work, args.on_disk, args.threads):
            print(json.dumps(row), flush=True)
    else:
        results = measure(args.work, args.entries, args.dimension)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(markdown(results))


if __name__ == "__main__":
    main()
