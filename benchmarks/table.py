"""The results as Markdown, and their place in docs/benchmarks.md."""

from typing import Any

from benchmarks.combiners import VANILLA

BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"

Row = dict[str, Any]


def markdown(results: dict[str, Any]) -> str:
    """All tables.

    Args:
        results: the content of results/benchmarks.json.
    """
    prefix = f" The measured commands were run with `{results['prefix']}`." if results["prefix"] else ""
    described = [f"- **{name}**: {description}." for name, description in results["settings"].items()]
    return "\n".join(
        [
            f"Machine: {results['machine']}.{prefix}",
            "",
            *described,
            "",
            "### Translating",
            "",
            *_decoding(results["decoding"]),
            "",
            "### Translating with trained combiners",
            "",
            *_combiners(results["combiners"]),
            "",
            "### Training combiners",
            "",
            *_training(results["training"]),
            "",
            *_checkpoints(results["checkpoints"]),
            "",
            "### Building a datastore",
            "",
            *_building(results["building"]),
            "",
            "### Searching more entries",
            "",
            *_search(results["search"]),
            "",
        ]
    )


def with_table(page: str, table: str) -> str:
    """Replace what stands between the two markers of *page*."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


def _decoding(rows: list[Row]) -> list[str]:
    lines = [
        "| setting | entries | system | index | nprobe | recall@8 | ms per search | tokens/s | speed, base = 1 |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        found = ("", "", "", "", "")
        if "index" in row:
            found = (
                f"{row['entries']:,}",
                row["index"],
                str(row["nprobe"]),
                f"{row['recall']:.3f}",
                f"{row['search_ms']['median']:.1f}",
            )
        entries, index, nprobe, recall, search = found
        lines.append(
            f"| {row['setting']} | {entries} | {row['system']} | {index} | {nprobe} | {recall} | {search} | "
            f"{row['tokens_per_s']['median']:.0f} | {_ratio(row['ratio']) if index else '1'} |"
        )
    return lines


def _combiners(rows: list[Row]) -> list[str]:
    lines = [
        "| setting | combiner | ms per search | tokens/s | speed, vanilla = 1 |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        ratio = "1" if row["system"] == VANILLA else _ratio(row["ratio"])
        lines.append(
            f"| {row['setting']} | {row['system']} | {row['search_ms']['median']:.1f} | "
            f"{row['tokens_per_s']['median']:.0f} | {ratio} |"
        )
    return lines


def _training(rows: list[Row]) -> list[str]:
    lines = [
        "| setting | combiner | updates/s without cache | updates/s cached | speed, without = 1 |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        plain, cached = row["updates_per_s"].values()
        lines.append(
            f"| {row['setting']} | {row['combiner']} | {plain['median']:.2f} | {cached['median']:.1f} | "
            f"{row['ratio']['median']:.0f} ({row['ratio']['low']:.0f} to {row['ratio']['high']:.0f}) |"
        )
    return lines


def _checkpoints(rows: list[Row]) -> list[str]:
    lines = ["| setting | combiner | parameters saved | of the base |", "|---|---|---:|---:|"]
    for row in rows:
        size = f"{row['bytes'] / 1e6:,.2f} MB"
        lines.append(f"| {row['setting']} | {row['combiner']} | {size} | {row['base_bytes'] / 1e6:,.0f} MB |")
    return lines


def _building(rows: list[Row]) -> list[str]:
    lines = [
        "| setting | tokens | scoring, s | building, s | speed, scoring = 1 | by fairseq's clock |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        seconds = row["seconds"]
        lines.append(
            f"| {row['setting']} | {row['tokens']:,} | {seconds['scoring']['median']:.1f} | "
            f"{seconds['building']['median']:.1f} | {_ratio(row['ratio'])} | {_ratio(row['timer_ratio'])} |"
        )
    return lines


def _search(rows: list[Row]) -> list[str]:
    lines = [
        "| setting | entries | index | built in | file | recall@8 | ms per 128 queries | own memory | mapped |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['setting']} | {row['entries']:,} | {row['index']} | {row['index_seconds']:.0f} s | "
            f"{row['megabytes']:,.0f} MB | {row['recall']:.3f} | {row['milliseconds']['median']:.1f} | "
            f"{row['own_bytes'] / 1e6:,.0f} MB | {row['mapped_bytes'] / 1e6:,.0f} MB |"
        )
    return lines


def _ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
