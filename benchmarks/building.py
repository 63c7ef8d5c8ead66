"""Building a datastore against scoring the same references without keeping anything."""

from pathlib import Path
from typing import Any

from workflow import quote

from benchmarks.rounds import Meter, as_json, ratios, spread
from benchmarks.setting import Setting
from benchmarks.stock_output import LOADING, read_run, require_equal

_OPTIONS = "--gen-subset train --score-reference --max-tokens 4096 --required-batch-size-multiple 1"
_ROUNDS = 3
SCORING, BUILDING = "scoring", "building"


def compare(setting: Setting, work: Path, meter: Meter) -> dict[str, Any]:
    """The row of the table for one setting.

    Args:
        setting: whose references are scored.
        work: where datastores are written to.
        meter: runs what is measured.
    """
    store = work / f"{setting.name}-built"
    build = f"--knn-mode build_datastore --knn-datastore-path {quote(store)} --knn-overwrite"
    commands = {
        SCORING: setting.generate(setting.building, "translation", _OPTIONS),
        BUILDING: setting.generate(setting.building, "translation_knn", f"{_OPTIONS} {build}"),
    }
    results = meter.measure(f"building-{setting.name}", commands, read_run, rounds=_ROUNDS, after=LOADING)
    require_equal(results, "tokens")
    return {
        "setting": setting.name,
        "tokens": results[0][BUILDING]["tokens"],
        "tokens_per_s": {name: as_json(spread(results, name, "tokens_per_s")) for name in commands},
        "timer_ratio": as_json(ratios(results, BUILDING, SCORING, "tokens_per_s")),
        "seconds": {name: as_json(spread(results, name, "seconds")) for name in commands},
        "ratio": as_json(ratios(results, SCORING, BUILDING, "seconds")),
    }
