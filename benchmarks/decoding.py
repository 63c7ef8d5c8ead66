"""Translating with a datastore against translating without."""

import json
from pathlib import Path
from typing import Any

from workflow import Workflow, quote

from benchmarks.linked_copy import linked_copy
from benchmarks.rounds import Meter, as_json, ratios, spread
from benchmarks.setting import Setting
from benchmarks.stock_output import LOADING, read_run, require_equal

_LENGTH = 25  # of every hypothesis, EOS not counted: equal work for all
OPTIONS = (
    f"--gen-subset test --beam 4 --batch-size 32 --required-batch-size-multiple 1 --min-len {_LENGTH} --max-len-a 0 "
    f"--max-len-b {_LENGTH}"
)
KNN = "--knn-k 8 --knn-lambda 0.5 --knn-temperature 10"
_KNNBOX_NPROBE = "--knn-nprobe 32"
BASE, AUTO, KNNBOX = "base", "kNN-MT", "kNN-MT, index of knn-box"


def compare(setting: Setting, flow: Workflow, meter: Meter) -> list[dict[str, Any]]:
    """Rows of the table for one setting.

    Args:
        setting: what is translated.
        flow: runs what is prepared.
        meter: runs what is measured.
    """
    stores = {AUTO: setting.store, KNNBOX: _with_index_of_knnbox(setting, flow)}
    # A system is a name and the options it has beyond those of all.
    systems = {
        AUTO: f"--knn-datastore-path {quote(stores[AUTO])} {KNN}",
        KNNBOX: f"--knn-datastore-path {quote(stores[KNNBOX])} {KNN} {_KNNBOX_NPROBE}",
    }
    commands = {BASE: setting.generate(setting.data, "translation", OPTIONS)} | {
        name: setting.generate(setting.data, "translation_knn", f"{OPTIONS} {options}")
        for name, options in systems.items()
    }
    results = meter.measure(f"decoding-{setting.name}", commands, read_run, after=LOADING)
    require_equal(results, "tokens")
    rows = []
    for name in commands:
        row: dict[str, Any] = {
            "setting": setting.name,
            "system": name,
            "tokens": results[0][name]["tokens"],
            "tokens_per_s": as_json(spread(results, name, "tokens_per_s")),
            "ratio": as_json(ratios(results, name, BASE, "tokens_per_s")),
        }
        if name in stores:
            record = json.loads((stores[name] / "index.json").read_text(encoding="utf-8"))
            row |= {
                "entries": record["settings"]["entries"],
                "index": record["settings"]["factory"],
                "nprobe": record["nprobe"],
                "recall": record["recall"],
                "search_ms": as_json(spread(results, name, "search_ms")),
            }
        rows.append(row)
    return rows


def _with_index_of_knnbox(setting: Setting, flow: Workflow) -> Path:
    """The same datastore with the index knn-box builds, whatever its recall."""
    dimension = json.loads((setting.store / "manifest.json").read_text(encoding="utf-8"))["dimension"]
    # Its default is 64 codes of a byte; their number must divide the dimension.
    codes = next(number for number in range(64, 0, -1) if dimension % number == 0)
    copy = linked_copy(setting.store, f"{setting.name}-knnbox", flow)
    flow.run(
        f"{setting.name}-knnbox-index",
        f"fairseq-knn build-index {quote(copy)} --knn-index IVF1024,PQ{codes} --min-recall 0 {_KNNBOX_NPROBE}",
    )
    return copy
