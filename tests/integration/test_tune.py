"""`fairseq-knn tune` on the toy domain."""

import json
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
    # The same setting under stock fairseq-generate --score-reference, mean over all tokens.
    setting = ("--knn-k", best["k"], "--knn-lambda", best["weight"], "--knn-temperature", best["temperature"])
    run = toy.translate(datastore, "--score-reference", *setting, split="valid")
    scores = [score for hypothesis in run.hypotheses().values() for score in hypothesis.positional]
    assert len(scores) == tuned["tokens"]
    natural = -sum(scores) / len(scores) * 0.6931471805599453
    assert natural == pytest.approx(best["loss"], abs=1e-3)


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
