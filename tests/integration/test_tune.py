"""`fairseq-knn tune` on the toy domain."""

import json
import math
from pathlib import Path

import pytest

from fairseq_knn.cli.main import main
from tests import cli, toy


def tune(datastore: Path, *arguments: object) -> int:
    known = ["tune", toy.DOMAIN, "--user-dir", cli.PACKAGE, "--path", toy.BASE, "--cpu"]
    return main([str(a) for a in [*known, "--knn-datastore-path", datastore, *arguments]])


def test_best_setting_beats_the_model_and_its_loss_is_what_fairseq_scores(
    datastore: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tuned.json"
    assert tune(datastore, "--ks", 4, 8, "--lambdas", 0.3, 0.7, "--temperatures", 5, 10, "--output", output) == 0
    printed = capsys.readouterr().out
    tuned = json.loads(output.read_text())
    best = tuned["best"]
    assert best["loss"] < 0.5 * tuned["model_loss"]
    assert f"best: --knn-k {best['k']} --knn-lambda {best['weight']:g} --knn-temperature" in printed
    assert len(tuned["grid"]) == 8
    assert tuned["tokens"] == sum(len(sentence) for sentence in toy.read_side(toy.DOMAIN, "valid", "en"))
    setting = ("--knn-k", best["k"], "--knn-lambda", best["weight"], "--knn-temperature", best["temperature"])
    assert scored(datastore, *setting) == pytest.approx(best["loss"], abs=1e-3)


def test_three_points_of_the_grid_run_by_hand(datastore: Path, tmp_path: Path) -> None:
    """From one retrieval with the largest k, what stock fairseq-generate scores with each setting."""
    output, picture = tmp_path / "tuned.json", tmp_path / "tuned.png"
    grid = ("--ks", 2, 8, 16, "--lambdas", 0.2, 0.5, 0.9, "--temperatures", 1, 10, 100)
    assert tune(datastore, *grid, "--output", output, "--heat-map", picture) == 0
    tuned = json.loads(output.read_text())
    losses = {(p["k"], p["weight"], p["temperature"]): p["loss"] for p in tuned["grid"]}
    for k, weight, temperature in ((2, 0.2, 100.0), (8, 0.9, 1.0), (16, 0.5, 10.0)):
        setting = ("--knn-k", k, "--knn-lambda", weight, "--knn-temperature", temperature)
        assert scored(datastore, *setting) == pytest.approx(losses[k, weight, temperature], abs=1e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")
    # And with one of the thresholds, for the best setting.
    best, skip = tuned["best"], tuned["skipping"][1]
    setting = ("--knn-k", best["k"], "--knn-lambda", best["weight"], "--knn-temperature", best["temperature"])
    assert 0 < skip["skipped"] < 1
    threshold = ("--knn-skip-threshold", skip["threshold"])
    assert scored(datastore, *setting, *threshold) == pytest.approx(skip["loss"], abs=1e-3)
    run = toy.translate(datastore, "--score-reference", *setting, *threshold, split="valid")
    assert f'"knn_skipped": {skip["skipped"]:.4f}'.rstrip("0") in run.closing_line


def scored(datastore: Path, *settings: object) -> float:
    """Mean loss of the references in nats per token, by fairseq-generate."""
    run = toy.translate(datastore, "--score-reference", *settings, split="valid")
    scores = [score for hypothesis in run.hypotheses().values() for score in hypothesis.positional]
    return -sum(scores) / len(scores) * math.log(2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--lambdas", 1.0), "--lambdas has 1"),
        (("--ks", 0), "--ks has 0"),
        (("--temperatures", 0), "--temperatures has 0"),
        (("--path", ""), "--path is missing"),
    ],
)
def test_bad_grid_is_refused_in_one_sentence(
    arguments: tuple[object, ...], sentence: str, datastore: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(datastore, *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fairseq-knn: error: ")
    assert sentence in error


def test_targets_that_cannot_be_written_are_noticed_before_the_model_runs(
    datastore: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, name, told in (
        ("--heat-map", "absent/x.png", "there is no directory"),
        ("--output", "absent/x.json", "there is no directory"),
        ("--heat-map", ".", "it is a directory"),
    ):
        assert tune(datastore, flag, tmp_path / name) == 1
        printed = capsys.readouterr()
        assert told in printed.err.strip().splitlines()[-1]
        assert "tokens" not in printed.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--path", "nope.pt"), "--path names nope.pt, but there is no such file"),
        (("--temperature", 1.0, "--ks", 2, "--lambdas", 0.5, "--temperatures", 10), None),
        (("--knn-mode", "build_datastore", "--ks", 2, "--lambdas", 0.5, "--temperatures", 10), None),
    ],
)
def test_flags_of_fairseq(
    arguments: tuple[object, ...], told: str | None, datastore: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(datastore, *arguments) == (0 if told is None else 1)
    printed = capsys.readouterr()
    if told is None:  # an abbreviation of --temperatures would have replaced 10
        assert "--knn-temperature 10" in printed.out
    else:
        assert told in printed.err


def test_data_that_is_not_there(datastore: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["--path", str(toy.BASE), "--knn-datastore-path", str(datastore)]
    assert main(["tune", "nodata", *known]) == 1
    assert "DATA names nodata, but there is no such file" in capsys.readouterr().err
    assert main(["tune", *known]) == 1
    assert "the following arguments are required: data (DATA, --path" in capsys.readouterr().err
