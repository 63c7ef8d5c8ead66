"""Put the measured tables into README.md and the documentation: ``python examples/readme_table.py``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
QUICKSTART, DEMO_LM, DEMO_DDS, DEMO_ST = "quickstart", "demo_lm", "demo_dds", "demo_st"
PAGES = {
    QUICKSTART: ("README.md",),
    DEMO_LM: ("README.md", "docs/knn-lm.md"),
    DEMO_DDS: ("README.md", "docs/multidds.md"),
    DEMO_ST: ("README.md", "docs/imitkd.md"),
}


def between_markers(page: str, marker: str, text: str) -> str:
    """Replace what stands between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, rest = page.split(begin)
    return before + begin + text + end + rest.split(end)[1]


def results(marker: str) -> Any:
    """What the script of that name has measured."""
    return json.loads((ROOT / "results" / f"{marker}.json").read_text(encoding="utf-8"))


def tables() -> dict[str, str]:
    """The table of every marker."""
    import demo_dds
    import demo_lm
    import demo_st
    import quickstart

    renderers: dict[str, Callable[[Any], str]] = {
        QUICKSTART: lambda content: quickstart.markdown(content["rows"]),
        DEMO_LM: demo_lm.markdown,
        DEMO_DDS: demo_dds.markdown,
        DEMO_ST: demo_st.markdown,
    }
    return {marker: render(results(marker)) for marker, render in renderers.items()}


def main() -> None:
    for marker, table in tables().items():
        for name in PAGES[marker]:
            path = ROOT / name
            path.write_text(between_markers(path.read_text(encoding="utf-8"), marker, table), encoding="utf-8")


if __name__ == "__main__":
    main()
