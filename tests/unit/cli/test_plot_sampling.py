"""``fairseq-knn plot-sampling``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairseq_knn.cli import plot_sampling as command
from fairseq_knn.cli.main import main
from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.sampling.round_log import Round

LANGUAGES = [f"{name}-eng" for name in ("aze", "bel", "rus", "tur", "glg", "por", "slk", "ces")]


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """Those of the figures that were written."""
    written: list[Axes] = []
    savefig = Figure.savefig

    def watched(figure: Figure, *arguments: object, **options: object) -> None:
        written.extend(panel for panel in figure.axes if panel.axison)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return written


def log(path: Path, updates: Sequence[int], p: Sequence[Sequence[float]], languages: Sequence[str] = LANGUAGES) -> Path:
    lines = ["2026-01-01 | INFO | fairseq_cli.train | begin"]
    for update, values in zip(updates, p, strict=True):
        one = Round(update, 1, 0.5, dict(zip(languages, values, strict=True)), {}, {}, {})
        lines.append(f"2026-01-01 | INFO | fairseq_knn | {one.line()}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, arguments))))


def curves(panel: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """By language: updates and probabilities."""
    return {
        str(line.get_label()).split()[0]: (list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()
    }


def test_eight_languages(tmp_path: Path, panels: list[Axes], capsys: pytest.CaptureFixture[str]) -> None:
    rising = [[0.01 * n, *[(1 - 0.01 * n) / 7] * 7] for n in (1, 2, 3)]
    path = log(tmp_path / "dds.log", (25, 50, 75), rising)
    assert run(path, "--output", tmp_path / "p.png") == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "p.png") in capsys.readouterr().out
    (panel,) = panels
    found = curves(panel)
    assert found.keys() == set(LANGUAGES)
    assert found["aze-eng"] == ([25, 50, 75], [0.01, 0.02, 0.03])
    assert panel.get_yscale() == "log"
    assert len({line.get_color() for line in panel.get_lines()}) == 8
    assert panel.get_title() == "dds"


def test_a_panel_for_every_log(tmp_path: Path, panels: list[Axes]) -> None:
    two = LANGUAGES[:2]
    one = log(tmp_path / "a.log", (10, 20), [(0.5, 0.5), (0.4, 0.6)], two)
    other = log(tmp_path / "b.log", (10, 20, 30), [(0.5, 0.5), (0.6, 0.4), (0.7, 0.3)], two[::-1])
    assert run(one, other, "--output", tmp_path / "p.png") == 0
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    assert [panel.get_yscale() for panel in panels] == ["linear", "linear"]
    assert curves(panels[0])["bel-eng"] == ([10, 20], [0.5, 0.6])
    assert curves(panels[1])["bel-eng"] == ([10, 20, 30], [0.5, 0.6, 0.7])
    colours = [{str(line.get_label()).split()[0]: line.get_color() for line in panel.get_lines()} for panel in panels]
    assert colours[0] == colours[1]
    # the legend has the order in which the curves end
    assert list(curves(panels[0])) == two[::-1]


def test_a_resumed_training(tmp_path: Path, panels: list[Axes]) -> None:
    two = LANGUAGES[:2]
    first = log(tmp_path / "1.log", (10, 20, 30), [(0.1, 0.9), (0.2, 0.8), (0.3, 0.7)], two)
    second = log(tmp_path / "2.log", (20, 30), [(0.4, 0.6), (0.5, 0.5)], two)
    assert run(first, second, "--resumed", "--output", tmp_path / "p.png") == 0
    (panel,) = panels
    assert curves(panel)["aze-eng"] == ([10, 20, 30], [0.1, 0.4, 0.5])


def test_logs_of_one_name(tmp_path: Path, panels: list[Axes]) -> None:
    paths = []
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        paths.append(log(tmp_path / directory / "train.log", (10,), [(0.5, 0.5)], LANGUAGES[:2]))
    assert run(*paths, "--output", tmp_path / "p.png") == 0
    assert [panel.get_title() for panel in panels] == list(map(str, paths))
    with pytest.raises(ConfigurationError, match="the same log is given twice"):
        run(*paths, paths[0], "--output", tmp_path / "p.png")


def test_what_cannot_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log(tmp_path / "stock.log", (), ())
    assert main(["plot-sampling", str(path), "--output", str(tmp_path / "p.png")]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"fairseq-knn: error: there is no line 'data actor: ' in {path}: draw the log of a")
    assert not (tmp_path / "p.png").exists()
    with pytest.raises(ConfigurationError, match=r"absent\.log cannot be read"):
        run(tmp_path / "absent.log", "--output", tmp_path / "p.png")
    drawn = log(tmp_path / "dds.log", (10,), [(0.5, 0.5)], LANGUAGES[:2])
    with pytest.raises(UserError):
        run(drawn, "--output", tmp_path / "absent" / "p.png")
