"""What RetoMaton's saved searches cost: perplexity against the fraction of searches that are saved."""

from pathlib import Path
from typing import Any

from fairseq_knn.storage.atomic import atomic_path


def draw_sweep(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a curve of RetoMaton without clusters, one with them, and the level of kNN-LM.

    Args:
        rows: of the sweep, as in results/demo_lm.json; the one without ``min_knns`` is kNN-LM.
        path: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for row in rows:
        if row["min_knns"] is None:
            panel.axhline(row["perplexity"], color="gray", linestyle="--", label="kNN-LM, which searches at every step")
    for clusters, label in ((False, "RetoMaton"), (True, "RetoMaton with clusters")):
        curve = sorted((row for row in rows if row["clusters"] is clusters), key=lambda row: row["saved"])
        panel.plot(
            [row["saved"] for row in curve], [row["perplexity"] for row in curve], marker="o", markersize=4, label=label
        )
        for row in curve:
            least = "always" if row["saved"] == 0 else str(row["min_knns"])
            panel.annotate(
                least,
                (row["saved"], row["perplexity"]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("searches saved (FoSS); numbers: --knn-min-knns")
    panel.set_ylabel("perplexity")
    panel.grid(alpha=0.3)
    panel.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
