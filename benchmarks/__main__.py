"""Measure everything: ``python -m benchmarks``. Run again, it skips what is done."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quickstart import Quickstart
from workflow import CommandFailed, Workflow

from benchmarks import ROOT, building, decoding, growth, machine, small
from benchmarks.combiners import Combiners
from benchmarks.large import LargeSetting
from benchmarks.rounds import Meter
from benchmarks.table import markdown, with_table


def measure(work: Path, quickstart: Path, rounds: int, prefix: str, factor: int) -> dict[str, Any]:
    """Prepare both settings and measure; the content of results/benchmarks.json."""
    flow = Workflow(work)
    steps = Quickstart(quickstart, quickstart, seeds=1)
    settings = [small.prepare(steps)]
    corpora = (steps.text(name) for name in ("it", "religious", "medical-random"))
    settings.append(LargeSetting(work / "large", flow, *corpora).prepare())
    meter = Meter(work / "measured", flow.environment, rounds, prefix)
    combiners = [Combiners(setting, work, flow, meter) for setting in settings]
    return {
        "machine": machine.describe(),
        "prefix": prefix,
        "settings": {setting.name: setting.description for setting in settings},
        "decoding": [row for setting in settings for row in decoding.compare(setting, flow, meter)],
        "building": [building.compare(setting, work, meter) for setting in settings],
        "training": [row for each in combiners for row in each.train()],
        "combiners": [row for each in combiners for row in each.translate()],
        "checkpoints": [row for each in combiners for row in each.sizes()],
        "search": growth.compare(settings[-1], factor, flow, meter),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("benchmarks/work"),
        help="data, model, datastores and logs (default: %(default)s)",
    )
    parser.add_argument(
        "--quickstart",
        type=Path,
        default=Path("quickstart"),
        help="where `make quickstart` was run, or else its data and model are made (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of every comparison (default: %(default)s)")
    parser.add_argument(
        "--prefix",
        default="",
        help="put before every measured command, such as 'chrt -r 5' on a machine that others use too, or "
        "'taskset -c 0,1' (default: nothing)",
    )
    parser.add_argument(
        "--factor", type=int, default=10, help="how many times as many keys are searched (default: %(default)s)"
    )
    args = parser.parse_args()
    try:
        results = measure(args.work, args.quickstart, args.rounds, args.prefix, args.factor)
    except CommandFailed as failure:
        print(f"benchmarks: {failure}", file=sys.stderr)
        return 1
    (ROOT / "results" / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page, table = ROOT / "docs" / "benchmarks.md", markdown(results)
    page.write_text(with_table(page.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(f"\n{table}\nwritten to results/benchmarks.json and docs/benchmarks.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
