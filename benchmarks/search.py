"""Search in one datastore: time, recall and memory, as a line of JSON.

python -m benchmarks.search STORE QUERIES [--device cuda] [--backend torch]

STORE is searched for keys of QUERIES, a datastore of text that STORE does not hold.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import resident
from fairseq_knn.datastore import Datastore
from fairseq_knn.index import BACKENDS, SearchBackend, open_backend
from fairseq_knn.index.sampling import sample_entries

_QUERIES, _BATCH, _PASSES = 1024, 128, 3
_K = 8
_TOLERANCE = 1e-5  # relative; between two float32 sums in different order


def measure(store: Path, queries: Path, device: str, backend: str) -> dict[str, Any]:
    """Search *store* for a sample of the keys of *queries*.

    Returns:
        ``milliseconds`` per 128 queries (median), ``recall`` of the 8 nearest, and what the search holds in memory:
        bytes of its own, and of mapped files.
    """
    wanted = Datastore.load(queries)
    rows = torch.from_numpy(wanted.gather_keys(sample_entries(wanted.entries, _QUERIES, seed=1))).float()
    datastore = Datastore.load(store)
    own, mapped = resident()
    search = open_backend(datastore, backend=backend, device=device)
    ids = _search(search, rows)[0]  # the first pass reads what is mapped
    times = [milliseconds for _ in range(_PASSES) for milliseconds in _search(search, rows)[1]]
    own_now, mapped_now = resident()
    return {
        "entries": datastore.entries,
        "dimension": datastore.dimension,
        "backend": type(search).__name__,
        "milliseconds": round(statistics.median(times), 2),
        "recall": round(_recall(datastore, rows, ids), 4),
        "own_bytes": own_now - own,
        "mapped_bytes": mapped_now - mapped,
    }


def _search(search: SearchBackend, rows: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """Neighbours (n, k), and the milliseconds of every batch."""
    found, times = [], []
    for batch in rows.to(search.device).split(_BATCH):
        started = time.perf_counter()
        found.append(search.search(batch, _K)[1].cpu())  # the copy waits for a GPU
        times.append(1000 * (time.perf_counter() - started))
    return torch.cat(found), times


def _recall(datastore: Datastore, rows: torch.Tensor, ids: torch.Tensor) -> float:
    """Share of the true nearest keys among *ids*; which of several equally near ones does not matter."""
    exact = open_backend(datastore, backend="torch")
    furthest = torch.cat([exact.search(batch, _K)[0][:, -1] for batch in rows.split(_BATCH)])
    keys = torch.from_numpy(datastore.gather_keys(ids.clamp_min(0).flatten().numpy())).float().view(*ids.shape, -1)
    distances = (keys - rows[:, None]).square_().sum(2).masked_fill_(ids < 0, torch.inf)
    return float((distances <= furthest[:, None] * (1 + _TOLERANCE)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("queries", type=Path, metavar="QUERIES")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    args = parser.parse_args()
    print(json.dumps(measure(args.store, args.queries, args.device, args.backend)))


if __name__ == "__main__":
    main()
