"""Combiners that knn-box trained translate here as they do there; what does not fit is said."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from fairseq_knn import AdaptiveCombiner, KernelSmoothedCombiner, RobustCombiner
from fairseq_knn.cli.main import main
from fairseq_knn.combiners import TrainedCombiner
from fairseq_knn.errors import UserError
from tests import cli, toy
from tests.damage import change_manifest, rewrite

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


@pytest.fixture
def robust(tmp_path: Path) -> Path:
    """A robust combiner whose weights are far enough from 0 for its inputs to matter."""
    torch.manual_seed(1)
    combiner = RobustCombiner(8, VOCABULARY)
    with torch.no_grad():
        for parameter in combiner.parameters():
            parameter.mul_(3.0)
    combiner.dump(tmp_path / "robust")
    return tmp_path / "robust"


def without_log_probs(datastore: Path, path: Path) -> Path:
    """A copy as an earlier version of this package would have written it."""
    copy = Path(shutil.copytree(datastore, path))
    for file in copy.glob("shards/log_probs-*.npy"):
        file.unlink()
    change_manifest(copy, lambda manifest: [shard["arrays"].pop("log_probs") for shard in manifest["shards"]])
    return copy


def test_stored_probabilities_are_those_computed_from_keys(robust: Path, small_datastore: Path, tmp_path: Path) -> None:
    older, oldest = (without_log_probs(small_datastore, tmp_path / name) for name in ("older", "oldest"))
    mixed, both = Path(f"{small_datastore}:{older}"), Path(f"{oldest}:{older}")

    def score(store: Path) -> cli.Run:
        return translate(robust, "--score-reference", datastore=store)

    runs = {store: score(store) for store in (small_datastore, older, mixed, both)}
    # Keys are rounded to float16.
    toy.assert_scores_close(runs[small_datastore], runs[older], 0.02)
    toy.assert_scores_close(runs[mixed], runs[both])
    # And they matter: with other ones in the files the scores are others.
    other = Path(shutil.copytree(small_datastore, tmp_path / "other"))
    for shard in range(11):
        rewrite(other, "log_probs", shard, lambda log_probs: log_probs - 5)
    ours, others = (run.hypotheses() for run in (runs[small_datastore], score(other)))
    assert max(abs(ours[i].score - others[i].score) for i in ours) > 0.1


def test_stored_probabilities_need_no_particular_keys(robust: Path, tmp_path: Path) -> None:
    assert toy.build(tmp_path / "store", "--knn-key", "ffn_input").status == 0
    assert translate(robust, datastore=tmp_path / "store").status == 0
    older = without_log_probs(tmp_path / "store", tmp_path / "older")
    with pytest.raises(UserError, match=r"a robust combiner needs .*/older does not hold .* for they are ffn_input"):
        translate(robust, datastore=older)


def test_stored_probabilities_need_no_keys_at_all(robust: Path, small_datastore: Path, tmp_path: Path) -> None:
    dropped = Path(shutil.copytree(small_datastore, tmp_path / "dropped"))
    assert main(["build-index", str(dropped), "--drop-keys"]) == 0
    run, whole = (translate(robust, "--score-reference", datastore=store) for store in (dropped, small_datastore))
    toy.assert_scores_close(run, whole, 0.01)


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
