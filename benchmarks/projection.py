"""Sizes and times of large datastores, computed from unit costs.

python -m benchmarks.projection

Writes the tables of docs/scaling.md. What decides sizes (lists, training keys, bytes of an entry) is taken from the
code or measured; seconds are unit costs of results/unit_costs.json times how often they occur, in proportion to the
dimension.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.index.factory import number_of_lists, training_size
from fairseq_knn.index.recall import QUERIES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- projection -->\n", "<!-- /projection -->"
ENTRIES = (10_000_000, 100_000_000, 1_000_000_000)
DIMENSIONS = (1024, 4096)
DEFAULT, ON_DISK = "default", "on disk"
_NPROBES = (8, 32)
_DAY = 86400
_MEASURED_DIMENSION, _MEASURED_CORES = 512, 2  # of the large setting in results/benchmarks.json
_GPU_BYTES, _GPU_SHARE = 80e9, 0.7
_TRAINING_BYTES = 14  # for each number of a training key: results/scaling.json has 9 to 13, and 0.4 GB


@dataclass(frozen=True)
class Costs:
    """Seconds of one core.

    Args:
        dimension: that was measured.
        learning: one key of the training sample, for each list and dimension.
        coarse: finding the nearest of the lists, for each list and dimension.
        exact: one query against one key, for each dimension.
        indexes: what was measured of each kind of index.
    """

    dimension: int
    learning: float
    coarse: float
    exact: float
    indexes: dict[str, Any]

    @classmethod
    def of(cls, measured: dict[str, Any]) -> "Costs":
        """From results/unit_costs.json."""
        dimension, train, nearest = measured["dimension"], measured["train"][-1], measured["nearest_list"]
        return cls(
            dimension,
            train["seconds"] / train["keys"] / train["lists"] / dimension,
            nearest["seconds"] / nearest["lists"] / dimension,
            measured["exact_per_query_and_key"] / dimension,
            measured["indexes"],
        )

    def encode(self, kind: str, dimension: int) -> float:
        """Making the code of a key whose list is known, and storing it."""
        seconds = self.indexes[kind]["add"] - self.coarse * self.indexes[kind]["lists"] * self.dimension
        return max(0.0, seconds) * dimension / self.dimension

    def search(self, kind: str, dimension: int) -> float:
        """One query and one key of the lists it looks into."""
        points = self.indexes[kind]["search"]
        slope = np.polyfit([point["probed"] for point in points], [point["seconds"] for point in points], 1)[0]
        return float(slope) * dimension / self.dimension


def lists_of(kind: str, entries: int) -> int:
    """Lists as `build-index` chooses them: more of them where they stay on disk."""
    return number_of_lists(16 * entries, entries) if kind == ON_DISK else number_of_lists(entries)


def index_bytes(kind: str, entries: int, dimension: int) -> float:
    """Bytes of an index: codes and ids of the entries, and the centroids of the lists."""
    return entries * ENTRY_BYTES[kind](dimension) + 4 * lists_of(kind, entries) * dimension


# Of an entry in an index; what is measured is compared with it by a test.
ENTRY_BYTES = {
    "default": lambda dimension: 2 * dimension + dimension / 8 + 8,
    "on disk": lambda dimension: dimension / 8 + 16,
    "SQ4": lambda dimension: dimension / 2 + 8,
    "SQ8": lambda dimension: dimension + 8,
    "PQ64": lambda _: 72,
}


def datastore_bytes(dimension: int, *, documents: bool) -> int:
    """Bytes of an entry on disk: key, value, sentence, position, log-probability, and a language model's document."""
    return 2 * dimension + 16 + 4 * documents


def markdown(measured: dict[str, Any], benchmarks: dict[str, Any]) -> str:
    """All tables.

    Args:
        measured: the content of results/unit_costs.json.
        benchmarks: the content of results/benchmarks.json: how fast a model builds, and how long whole indexes took.
    """
    large = next(row for row in benchmarks["building"] if row["setting"] == "large")
    tokens_per_s = large["tokens_per_s"]["building"]["median"]
    costs = Costs.of(measured)
    return "\n".join(
        [
            f"Measured on: {measured['machine']}; one thread, d = {measured['dimension']:,}.",
            "",
            *_unit_costs(costs),
            "",
            "**Sizes** (datastore, and index on disk or in memory; that of a language model has 4 N bytes more)",
            "",
            *_sizes(),
            "",
            f"**Building** (d = {DIMENSIONS[0]:,}; core-hours are of the measured machine)",
            "",
            *_building(costs, tokens_per_s),
            "",
            "The same formulas for indexes that were built as a whole, on 2 cores of another machine "
            "([benchmarks](benchmarks.md#searching-more-entries)):",
            "",
            *_checks(costs, benchmarks["search"]),
            "",
            f"**Searching** (a query, k = 8, d = {DIMENSIONS[0]:,}, one core, everything in memory)",
            "",
            *_searching(costs),
            "",
            "**GPUs of 80 GB** that hold it together, 70 % of each for it (arithmetic only)",
            "",
            *_gpus(),
            "",
        ]
    )


def _unit_costs(costs: Costs) -> list[str]:
    lines = [
        "| | unit cost of one core | |",
        "|---|---:|---|",
        f"| k_learn | {_ps(costs.learning)} | k-means of the lists: a key of the sample, for each list and dimension |",
        f"| k_list | {_ps(costs.coarse)} | finding the list of a key or query, for each list and dimension |",
        f"| k_exact | {_ps(costs.exact)} | exact search: a query and a key, for each dimension |",
    ]
    lines += ["", "| index | k_code: making a code | k_key: looking at a key |", "|---|---:|---:|"]
    for kind, index in costs.indexes.items():
        code, key = costs.encode(kind, costs.dimension), costs.search(kind, costs.dimension)
        name = f"{kind}, `{index['factory']}`" if kind in (DEFAULT, ON_DISK) else f"`{index['factory']}`"
        lines.append(f"| {name} | {1e6 * code:,.1f} us | {1e9 * key:,.0f} ns |")
    return lines


def _checks(costs: Costs, searched: list[dict[str, Any]]) -> list[str]:
    """What the formulas say of the indexes that were built by the other benchmarks, beside what these took."""
    lines = ["| entries | d | computed, s | measured, s |", "|---:|---:|---:|---:|"]
    for row in searched:
        lists, dimension = number_of_lists(row["entries"]), _MEASURED_DIMENSION
        seconds = _build_seconds(costs, row["entries"], lists, dimension) / _MEASURED_CORES
        lines.append(f"| {row['entries']:,} | {dimension} | {seconds:,.0f} | {row['index_seconds']:,.0f} |")
    return lines


def _build_seconds(costs: Costs, entries: int, lists: int, dimension: int) -> float:
    """Learning, adding, and the exact search of the recall, of the default index."""
    return (
        costs.learning * training_size(entries, lists) * lists * dimension
        + entries * (costs.encode(DEFAULT, dimension) + costs.coarse * lists * dimension)
        + costs.exact * QUERIES * entries * dimension
    )


def _sizes() -> list[str]:
    kinds = (DEFAULT, ON_DISK, "SQ8", "PQ64")
    names = ("index, default", "index, `--on-disk`", "`IVF...,SQ8`", "`IVF...,PQ64`")
    lines = [
        f"| entries | d | keys | all of the datastore | {' | '.join(names)} | values in memory |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for entries in ENTRIES:
        for dimension in DIMENSIONS:
            sizes = [
                2 * dimension * entries,
                datastore_bytes(dimension, documents=False) * entries,
                *(index_bytes(kind, entries, dimension) for kind in kinds),
                4 * entries,
            ]
            lines.append(f"| {_count(entries)} | {dimension:,} | {' | '.join(_size(size) for size in sizes)} |")
    return lines


def _building(costs: Costs, tokens_per_s: float) -> list[str]:
    lines = [
        "| entries | build in a day: tasks of 2 cores | index | lists | training keys | memory for them | learning | "
        "adding | exact search for the recall |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    dimension = DIMENSIONS[0]
    for entries in ENTRIES:
        for kind in (DEFAULT, ON_DISK):
            lists = lists_of(kind, entries)
            sample = training_size(entries, lists)
            cells = [
                _count(entries),
                f"{-(-entries // int(tokens_per_s * _DAY)):,}",
                kind,
                f"{lists:,}",
                f"{sample / 1e6:,.1f} M",
                _size(_TRAINING_BYTES * dimension * sample),
                _hours(costs.learning * sample * lists * dimension),
                _hours(entries * (costs.encode(kind, dimension) + costs.coarse * lists * dimension)),
                _hours(costs.exact * QUERIES * entries * dimension),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _searching(costs: Costs) -> list[str]:
    lines = [
        "| entries | nprobe | index | keys looked at | time | codes read |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    dimension = DIMENSIONS[0]
    for entries in ENTRIES:
        for nprobe in _NPROBES:
            for kind in (DEFAULT, ON_DISK):
                lists = lists_of(kind, entries)
                probed = nprobe * entries / lists
                seconds = costs.coarse * lists * dimension + costs.search(kind, dimension) * probed
                read = probed * (ENTRY_BYTES[kind](dimension) - (2 * dimension if kind == DEFAULT else 0))
                cells = [_count(entries), str(nprobe), kind, f"{probed:,.0f}", f"{1000 * seconds:,.1f} ms", _size(read)]
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def _gpus() -> list[str]:
    lines = [
        "| entries | d | exact (torch), 2 d + 4 bytes | `SQ8` | `SQ4` | `PQ64` |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for entries in ENTRIES:
        for dimension in DIMENSIONS:
            sizes = [
                (2 * dimension + 4) * entries,
                *(index_bytes(kind, entries, dimension) for kind in ("SQ8", "SQ4", "PQ64")),
            ]
            gpus = [-(-size // (_GPU_SHARE * _GPU_BYTES)) for size in sizes]
            lines.append(f"| {_count(entries)} | {dimension:,} | {' | '.join(f'{count:.0f}' for count in gpus)} |")
    return lines


def _count(entries: int) -> str:
    return f"{entries / 1e9:.0f} B" if entries >= 1e9 else f"{entries / 1e6:.0f} M"


def _size(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.0f} kB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 360 else f"{seconds / 60:,.1f} min"


def _ps(seconds: float) -> str:
    return f"{1e12 * seconds:,.1f} ps"


def with_tables(page: str, tables: str) -> str:
    """Replace what stands between the two markers of *page*."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + tables + END + rest.split(END)[1]


def read() -> str:
    """The tables of what was measured last."""
    measured = json.loads((ROOT / "results" / "unit_costs.json").read_text(encoding="utf-8"))
    benchmarks = json.loads((ROOT / "results" / "benchmarks.json").read_text(encoding="utf-8"))
    return markdown(measured, benchmarks)


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")


if __name__ == "__main__":
    main()
