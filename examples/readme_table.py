"""Put the measured tables into README.md and the documentation: ``python examples/readme_table.py``."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
QUICKSTART, DEMO_LM, DEMO_DDS, DEMO_ST, DEMO_RECIPE = "quickstart", "demo_lm", "demo_dds", "demo_st", "demo_recipe"
GAINS = "gains"
PAGES = {
    GAINS: "README.md",
    QUICKSTART: "docs/quickstart.md",
    DEMO_LM: "docs/knn-lm.md",
    DEMO_DDS: "docs/multidds.md",
    DEMO_ST: "docs/imitkd.md",
    DEMO_RECIPE: "docs/recipe.md",
}


def between_markers(page: str, marker: str, text: str) -> str:
    """Replace what stands between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, rest = page.split(begin)
    return before + begin + text + end + rest.split(end)[1]


def results(marker: str) -> Any:
    """What the script of that name has measured."""
    return json.loads((ROOT / "results" / f"{marker}.json").read_text(encoding="utf-8"))


def gains() -> str:
    """What every method changes, in a line or two of what its own script has measured."""
    rows = {name: results(name)["rows"] for name in (QUICKSTART, DEMO_LM, DEMO_DDS, DEMO_ST, DEMO_RECIPE)}

    def only(name: str, **wanted: Any) -> Any:
        (row,) = (row for row in rows[name] if all(row[field] == value for field, value in wanted.items()))
        return row

    def small(system: str) -> str:
        scores = only(DEMO_DDS, system=system)["scores"]
        return f"{statistics.mean(scores[language]['bleu'] for language in ('aze', 'bel')):.1f}"

    medical = {"domain": "medical", "split": "random"}
    base, *found = (
        only(QUICKSTART, system=system, **medical)["bleu"] for system in ("base", "kNN-MT", "KSTER", "adaptive kNN-MT")
    )
    bible = {"text": "Bible", "model": "base", "min_knns": None}
    without, with_neighbours = (
        only(DEMO_LM, system="base", text="Bible")["perplexity"],
        only(DEMO_LM, system="kNN-LM", **bible)["perplexity"],
    )
    pointed = only(DEMO_LM, system="RetoMaton, clusters", text="Bible", min_knns=4)
    alone, taught, helped = (only(DEMO_ST, system=name)["bleu_test"] for name in ("NLL", "ImitKD-full", "NLL + kNN"))
    copied, trained = (only(DEMO_RECIPE, system=name)["bleu"] for name in ("source text as it is", "recipe"))
    lines = (
        ("kNN-MT", "medical terms by a model that has read IT alone, BLEU", base, found[0]),
        ("KSTER; adaptive kNN-MT", "the same, BLEU", base, f"{found[1]}; {found[2]}"),
        ("kNN-LM", "the Bible by a model of Wikipedia, perplexity", f"{without:.1f}", f"{with_neighbours:.1f}"),
        (
            "RetoMaton",
            f"the same with {pointed['saved']:.0%} of the searches saved, perplexity",
            f"{without:.1f}",
            f"{pointed['perplexity']:.1f}",
        ),
        (
            "MultiDDS-S",
            "the two smallest of eight languages into English, BLEU (without: in proportion; at temperature 5)",
            f"{small('proportional')}; {small('temperature 5')}",
            small("MultiDDS-S"),
        ),
        ("kNN-MT for speech", "Czech speech into English, BLEU", f"{alone:.1f}", f"{helped:.1f}"),
        (
            "ImitKD-full",
            "the same student, taught by an expert as small as itself instead of by references, BLEU",
            f"{alone:.1f}",
            f"{taught:.1f}",
        ),
        (
            "recipe",
            f"English to French from {results(DEMO_RECIPE)['pairs']:,} pairs, BLEU (without: the English as it is)",
            f"{copied:.1f}",
            f"{trained:.1f}",
        ),
    )
    table = "".join(f"| {method} | {what} | {before} | {after} |\n" for method, what, before, after in lines)
    unseen, foreign = (
        only(QUICKSTART, system="kNN-MT", domain="medical", split=split)["bleu"] for split in ("category", "chapter")
    )
    return (
        "| method | measured here, with models trained for minutes on 2 cores | without | with |\n|---|---|---:|---:|\n"
        f"{table}\nMost of these medical terms have close relatives in the datastore, as in a translation memory; "
        f"kNN-MT reaches {unseen} where their categories are not in it, {foreign} where whole chapters are not.\n"
    )


def tables() -> dict[str, str]:
    """The table of every marker."""
    import demo_dds
    import demo_lm
    import demo_recipe
    import demo_st
    import quickstart

    renderers: dict[str, Callable[[Any], str]] = {
        QUICKSTART: lambda content: quickstart.markdown(content["rows"]),
        DEMO_LM: demo_lm.markdown,
        DEMO_DDS: demo_dds.markdown,
        DEMO_ST: demo_st.markdown,
        DEMO_RECIPE: demo_recipe.markdown,
    }
    return {GAINS: gains()} | {marker: render(results(marker)) for marker, render in renderers.items()}


def main() -> None:
    for marker, table in tables().items():
        path = ROOT / PAGES[marker]
        path.write_text(between_markers(path.read_text(encoding="utf-8"), marker, table), encoding="utf-8")


if __name__ == "__main__":
    main()
