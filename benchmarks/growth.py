"""Search in a datastore and in one many times as large, side by side."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from workflow import Workflow, quote

from benchmarks.enlarge import enlarge
from benchmarks.linked_copy import linked_copy
from benchmarks.rounds import Figures, Meter, as_json, spread
from benchmarks.setting import Setting
from fairseq_knn.datastore import Datastore

_ROUNDS = 3
# Of what `fairseq-knn build-index` prints.
_SUMMARY = re.compile(r"^(\S+), ([\d,.]+) MB, recall@", re.MULTILINE)


def compare(setting: Setting, factor: int, flow: Workflow, meter: Meter) -> list[dict[str, Any]]:
    """Rows of the table: the setting's datastore, and one *factor* times as large.

    The large one takes some gigabytes of disk; when all is measured it is deleted.

    Args:
        setting: whose datastore and queries are taken.
        factor: how many times as large.
        flow: runs what is prepared.
        meter: runs what is measured.
    """
    queries = _queries(setting, flow)
    small = linked_copy(setting.store, f"{setting.name}-1x", flow)
    large = setting.store.with_name(f"{setting.name}-{factor}x")
    stores = {"1": small, str(factor): large}
    name = f"{setting.name}-{factor}x"
    building = {size: f"fairseq-knn build-index {quote(store)}" for size, store in stores.items()}
    searching = {size: f"python -m benchmarks.search {quote(store)} {quote(queries)}" for size, store in stores.items()}
    if not meter.finished(f"search-{name}", searching, _ROUNDS) and not (large / "manifest.json").exists():
        print(f"\n[{name}] writing {large}", flush=True)
        enlarge(Datastore.load(setting.store), large, factor)
    built = meter.measure(f"index-{name}", building, _read_building, rounds=1)[0]
    searched = meter.measure(f"search-{name}", searching, _read_json, rounds=_ROUNDS)
    shutil.rmtree(large, ignore_errors=True)
    return [
        {
            "setting": setting.name,
            "entries": searched[0][size]["entries"],
            "recall": searched[0][size]["recall"],
            "milliseconds": as_json(spread(searched, size, "milliseconds")),
            "own_bytes": spread(searched, size, "own_bytes").median,
            "mapped_bytes": spread(searched, size, "mapped_bytes").median,
            **built[size],
        }
        for size in stores
    ]


def _queries(setting: Setting, flow: Workflow) -> Path:
    """Hidden states of the test text, as the keys of a datastore."""
    queries = setting.store.with_name(f"{setting.name}-queries")
    flow.run(
        f"{setting.name}-queries",
        setting.generate(
            setting.data,
            "translation_knn",
            "--gen-subset test --score-reference --knn-mode build_datastore --knn-datastore-path "
            f"{quote(queries)} --max-tokens 4096",
        ),
    )
    return queries


def _read_building(output: str, seconds: float) -> Figures:
    summary = _SUMMARY.search(output)
    assert summary is not None, output
    return {"index": summary[1], "megabytes": float(summary[2].replace(",", "")), "index_seconds": round(seconds, 1)}


def _read_json(output: str, _seconds: float) -> Figures:
    figures: Figures = json.loads(output.splitlines()[-1])
    return figures
