"""A picture of the grid that ``fairseq-knn tune`` searched."""

import math
from pathlib import Path

import numpy as np

from fairseq_knn.combiners.grid import VanillaGrid
from fairseq_knn.storage.atomic import atomic_path

_COLUMNS = 4  # panels side by side
_RANGE = 2.0  # perplexities beyond so many times the best have the darkest colour


def draw_heat_map(grid: VanillaGrid, path: Path) -> None:
    """Write a PNG: for every k a panel of perplexities over lambda and temperature; a cross marks the best setting.

    Args:
        grid: with all references added.
        path: of the picture.

    Raises:
        UserError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    points = grid.points()
    best = points[0]
    perplexity = {(p.k, p.weight, p.temperature): p.perplexity for p in points}
    columns = min(_COLUMNS, len(grid.ks))
    rows = math.ceil(len(grid.ks) / columns)
    figure = Figure(figsize=(1.6 + 3.2 * columns, 0.6 + 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    norm = LogNorm(best.perplexity, _RANGE * best.perplexity, clip=True)
    for panel, k in zip(panels, grid.ks, strict=False):
        values = [[perplexity[k, weight, t] for weight in grid.weights] for t in grid.temperatures]
        image = panel.imshow(np.array(values), norm=norm, cmap="viridis_r", aspect="auto", origin="lower")
        panel.set_title(f"k = {k}")
        panel.set_xticks(range(len(grid.weights)), [f"{weight:g}" for weight in grid.weights], rotation=90)
        panel.set_yticks(range(len(grid.temperatures)), [f"{t:g}" for t in grid.temperatures])
        panel.set_xlabel("lambda")
        panel.set_ylabel("temperature")
        if k == best.k:
            x, y = grid.weights.index(best.weight), grid.temperatures.index(best.temperature)
            panel.plot(x, y, marker="x", color="red", markersize=10, markeredgewidth=2)
    for panel in panels[len(grid.ks) :]:
        panel.set_axis_off()
    model = math.exp(min(grid.model_loss, 700))
    figure.suptitle(
        f"best {best.perplexity:.2f} (k {best.k}, lambda {best.weight:g}, T {best.temperature:g})\n"
        f"the model alone {model:.2f}"
    )
    bar = figure.colorbar(image, ax=panels.tolist(), label="perplexity", extend="max")
    for axis_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
        axis_formatter("{x:.3g}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
