"""Combiners that knn-box trained translate here as they do there; what does not fit is said."""

import re
import shutil
from pathlib import Path

import pytest

from fairseq_knn import AdaptiveCombiner, KernelSmoothedCombiner, RobustCombiner
from fairseq_knn.combiners import TrainedCombiner
from fairseq_knn.errors import UserError
from tests import cli, toy

KNNBOX = toy.TOY / "knnbox_datastore"
SETTINGS = ("--lenpen", 0.6, "--max-len-a", 1.2, "--max-len-b", 10, "--max-tokens", 2048)
VOCABULARY, DIMENSION = 168, 64


def translate(path: Path, *arguments: object, datastore: Path = KNNBOX) -> cli.Run:
    return toy.translate(datastore, *SETTINGS, "--knn-combiner-path", path, *arguments)


@pytest.mark.parametrize("name", ["adaptive", "kernel_smoothed"])
def test_translations_are_those_of_knnbox(name: str) -> None:
    run = translate(toy.TOY / f"knnbox_{name}")
    expected = cli.Run(0, (toy.TOY / f"expected.{name}.txt").read_text(encoding="utf-8"), "")
    ours, theirs = run.hypotheses(), expected.hypotheses()
    assert len(ours) == len(theirs) == toy.TEST_SENTENCES
    assert sum(ours[i].text == theirs[i].text for i in theirs) >= 0.97 * toy.TEST_SENTENCES
    assert run.bleu == pytest.approx(expected.bleu, abs=0.5)
    figures = run.closing_line
    assert '"knn_k": 8' in figures
    mean = re.search(r'"knn_lambda": ([\d.]+), .*"knn_lambda_high": ([\d.]+)', figures)
    assert mean is not None
    assert 0 < float(mean[1]) < 1
    assert 0 < float(mean[2]) <= 1


@pytest.mark.parametrize("make", [lambda: AdaptiveCombiner(4, VOCABULARY), lambda: RobustCombiner(8, VOCABULARY)])
def test_saved_combiners_translate(make: type[TrainedCombiner], tmp_path: Path) -> None:
    """Untrained, but everything is in its place: as many sentences, and scores that do not depend on batches."""
    make().dump(tmp_path)
    run = translate(tmp_path, "--score-reference")
    assert run.status == 0
    one = translate(tmp_path, "--score-reference", "--batch-size", 1)
    toy.assert_scores_close(run, one)


def test_ensembles_interactive_and_several_datastores(datastore: Path, small_datastore: Path) -> None:
    combiner = toy.TOY / "knnbox_kernel_smoothed"
    run = translate(combiner, "--knn-skip-threshold", 0.99, datastore=Path(f"{datastore}:{small_datastore}"))
    assert run.bleu > 60
    assert "knn_skipped" in run.closing_line


@pytest.mark.parametrize(
    ("make", "arguments", "told"),
    [
        (
            lambda: KernelSmoothedCombiner(DIMENSION, VOCABULARY),
            ("--knn-combiner", "adaptive"),
            "of the kind kernel_smoothed",
        ),
        (lambda: KernelSmoothedCombiner(DIMENSION + 1, VOCABULARY), (), "keys of dimension 65, those of"),
        (lambda: AdaptiveCombiner(8, VOCABULARY + 2), (), "trained with 170 target symbols, the data has 168"),
        (None, (), "there is no combiner in"),
    ],
)
def test_what_does_not_fit(
    make: type[TrainedCombiner] | None, arguments: tuple[object, ...], told: str, tmp_path: Path
) -> None:
    if make is not None:
        make().dump(tmp_path / "combiner")
    with pytest.raises(UserError, match=told):
        translate(tmp_path / "combiner", *arguments)


def test_a_trained_kind_without_a_trained_combiner() -> None:
    with pytest.raises(UserError, match="--knn-combiner robust has to be trained: name the directory"):
        toy.translate(KNNBOX, "--knn-combiner", "robust")


def test_a_damaged_directory(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy.TOY / "knnbox_adaptive", tmp_path / "copy"))
    (copy / "adaptive_combiner.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds no whole adaptive combiner"):
        translate(copy)
