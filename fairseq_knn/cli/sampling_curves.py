"""A picture of the probabilities that a data actor gave the languages."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fairseq_knn.sampling.round_log import Round
from fairseq_knn.storage.atomic import atomic_path

_COLUMNS = 2  # panels side by side
_SPREAD = 10.0  # probabilities that differ more than so many times are drawn on a logarithmic axis
_DASHES = ("-", "--", ":", "-.")  # one for every ten languages, as there are ten colours


def draw_sampling(trainings: Mapping[str, Sequence[Round]], path: Path) -> None:
    """Write a PNG with a panel for every training: the probability of each language over the model's updates.

    A language has the same colour in all panels. A legend lists the languages as their curves end, the highest first.

    Args:
        trainings: by the title of their panel; the rounds of each, at least one.
        path: of the picture.

    Raises:
        UserError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(trainings))
    rows = -(-len(trainings) // columns)
    figure = Figure(figsize=(6.4 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    languages = list(dict.fromkeys(name for rounds in trainings.values() for name in rounds[-1].p))
    styles = {
        name: {"color": f"C{number % 10}", "linestyle": _DASHES[number // 10 % len(_DASHES)]}
        for number, name in enumerate(languages)
    }
    logarithmic = any(_spread(rounds) > _SPREAD for rounds in trainings.values())
    for panel, (title, rounds) in zip(panels, trainings.items(), strict=False):
        last = rounds[-1].p
        for name in sorted(last, key=lambda name: -last[name]):
            panel.plot(
                [one.update for one in rounds],
                [one.p[name] for one in rounds],
                label=f"{name} {last[name]:.3f}",
                marker="o" if len(rounds) == 1 else None,
                **styles[name],
            )
        if logarithmic:
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("updates of the model")
        panel.set_ylabel("probability")
        panel.grid(alpha=0.3)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    for panel in panels[len(trainings) :]:
        panel.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _spread(rounds: Sequence[Round]) -> float:
    """How many times the lowest probability the highest is."""
    probabilities = [p for one in rounds for p in one.p.values()]
    return max(probabilities) / max(min(probabilities), 1e-12)
