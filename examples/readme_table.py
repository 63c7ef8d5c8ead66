"""Put the quick start's table into README.md: ``python examples/readme_table.py``."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARKER = "quickstart"


def between_markers(page: str, marker: str, text: str) -> str:
    """Replace what stands between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, rest = page.split(begin)
    return before + begin + text + end + rest.split(end)[1]


def main() -> None:
    from quickstart import markdown

    rows = json.loads((ROOT / "results" / "quickstart.json").read_text(encoding="utf-8"))["rows"]
    path = ROOT / "README.md"
    readme = between_markers(path.read_text(encoding="utf-8"), MARKER, markdown(rows))
    path.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
