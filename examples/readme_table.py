"""Put the quick start's table into README.md: ``python examples/readme_table.py``."""

import json
from pathlib import Path

from quickstart import markdown

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- quickstart -->\n", "<!-- /quickstart -->"


def readme_with_table(readme: str, table: str) -> str:
    """Replace what stands between the two markers."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


def main() -> None:
    rows = json.loads((ROOT / "results" / "quickstart.json").read_text(encoding="utf-8"))["rows"]
    path = ROOT / "README.md"
    path.write_text(readme_with_table(path.read_text(encoding="utf-8"), markdown(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
