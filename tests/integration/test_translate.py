"""Stock fairseq-generate and fairseq-interactive translate with datastores."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.cli.main import main as fairseq_knn_main
from fairseq_knn.errors import DatastoreError
from tests import cli, toy

SENTENCES = toy.TEST_SENTENCES
ROUNDING = 2e-4  # 1e-4 nats, to the base 2, printed with four decimals


@pytest.fixture(scope="module")
def vanilla(datastore: Path) -> cli.Run:
    """The test split translated with the defaults."""
    return toy.translate(datastore)


@pytest.fixture(scope="module")
def references(datastore: Path) -> cli.Run:
    """The test split's reference translations scored with the defaults."""
    return toy.translate(datastore, "--score-reference")


@pytest.fixture(scope="module")
def test_datastore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datastore of the test sentences themselves."""
    path = tmp_path_factory.mktemp("datastore") / "test"
    toy.build(path, split="test")
    return path


@pytest.fixture(scope="module")
def other_datastore(tmp_path_factory: pytest.TempPathFactory, other_model: Path) -> Path:
    """Datastore of the validation data, built with the other model."""
    path = tmp_path_factory.mktemp("datastore") / "other"
    toy.build(path, model=other_model)
    return path


def positional(run: cli.Run) -> dict[int, np.ndarray]:
    return {i: np.array(hypothesis.positional) for i, hypothesis in run.hypotheses().items()}


def test_lambda_zero_is_stock_bit_for_bit(datastore: Path) -> None:
    stock = cli.run_stock_generate(
        *(toy.DOMAIN, "--task", "translation", "--path", toy.BASE, "--gen-subset", "test", "--beam", 4),
        *("--required-batch-size-multiple", 1),
    )
    assert stock.status == 0, stock.log
    ours = toy.translate(datastore, "--knn-lambda", 0)
    assert len(stock.lines("H")) == SENTENCES
    assert ours.lines() == stock.lines()


def test_neighbours_help_on_the_new_domain(datastore: Path, vanilla: cli.Run) -> None:
    base = toy.translate(datastore, "--knn-lambda", 0)
    assert base.bleu == pytest.approx(36.2, abs=1.0)
    assert vanilla.bleu > base.bleu + 25


def test_every_sentence_is_translated_and_counted(vanilla: cli.Run) -> None:
    assert sorted(vanilla.hypotheses()) == list(range(SENTENCES))
    sentence, _, figures = vanilla.closing_line.partition(" | ")
    assert sentence == f"{SENTENCES} of {SENTENCES} sentences of 'test' processed"
    assert json.loads(figures)["sentences"] == SENTENCES
    assert json.loads(figures)["knn_searches"] > 0


@pytest.mark.parametrize("limits", [("--batch-size", 1), ("--batch-size", 7), ("--max-tokens", 100)], ids=str)
def test_scores_do_not_depend_on_batches(limits: tuple[object, ...], datastore: Path, references: cli.Run) -> None:
    toy.assert_scores_close(toy.translate(datastore, "--score-reference", *limits), references, ROUNDING)


def test_translations_do_not_depend_on_batches(datastore: Path, vanilla: cli.Run) -> None:
    toy.assert_scores_close(toy.translate(datastore, "--batch-size", 7), vanilla, ROUNDING, same=0.99)


def test_scores_do_not_depend_on_the_order_of_beams(datastore: Path, vanilla: cli.Run, tmp_path: Path) -> None:
    """Decoded step by step among other beams, or read as a whole: a hypothesis has one score."""
    toy.assert_scores_close(toy.translate(datastore, "--beam", 9), vanilla, ROUNDING, same=0.9)
    dictionary = {line.split()[0]: i for i, line in enumerate((toy.DOMAIN / "dict.en.txt").open(), start=4)}
    texts = vanilla.texts()
    targets = [torch.tensor([*(dictionary[word] for word in texts[i].split()), 2]) for i in range(SENTENCES)]
    toy.write_split(tmp_path, "test", toy.read_side(toy.DOMAIN, "test", "de"), targets)
    toy.assert_scores_close(toy.translate(datastore, "--score-reference", data=tmp_path), vanilla, ROUNDING)


def test_interactive_equals_generate(datastore: Path, vanilla: cli.Run, tmp_path: Path) -> None:
    lines = (toy.TOY / "domain.test.de").read_text().splitlines(keepends=True)[:13]
    (tmp_path / "input").write_text("".join(lines))
    arguments = (
        *(*toy.base_arguments(), "--user-dir", cli.PACKAGE, "--cpu", "--beam", 4),
        *("--knn-datastore-path", datastore),
    )
    piped = cli.run("fairseq-interactive", *arguments, stdin="".join(lines))
    assert piped.status == 0, piped.log
    fives = ("--input", tmp_path / "input", "--buffer-size", 5, "--batch-size", 5)
    buffered = cli.call("fairseq-interactive", *arguments, *fives)
    expected = vanilla.hypotheses()
    for run in (piped, buffered):
        assert "13 sentences processed" in run.closing_line
        found = run.hypotheses()
        assert sorted(found) == list(range(13))
        for i, hypothesis in found.items():
            assert hypothesis.text == expected[i].text
            np.testing.assert_allclose(hypothesis.positional, expected[i].positional, rtol=0, atol=ROUNDING)


def test_sampling(datastore: Path) -> None:
    def sample(seed: int) -> cli.Run:
        return toy.translate(datastore, "--sampling", "--sampling-topp", 0.9, "--beam", 2, "--nbest", 2, "--seed", seed)

    first = sample(7)
    assert len(first.lines("H")) == 2 * SENTENCES
    assert first.lines() == sample(7).lines()
    assert first.lines("D") != sample(8).lines("D")


def test_each_model_of_an_ensemble_uses_its_own_datastore(
    small_datastore: Path, other_model: Path, other_datastore: Path
) -> None:
    models = f"{toy.BASE}:{other_model}"
    both = toy.translate(f"{small_datastore}:{other_datastore}", "--score-reference", model=models)
    swapped = toy.translate(f"{other_datastore}:{small_datastore}", "--score-reference", model=models)
    assert both.lines() == swapped.lines()
    one = positional(toy.translate(small_datastore, "--score-reference"))
    other = positional(toy.translate(other_datastore, "--score-reference", model=other_model))
    assert any(np.abs(one[i] - other[i]).max() > 0.5 for i in one)
    for i, scores in positional(both).items():
        mean = np.log2((np.exp2(one[i]) + np.exp2(other[i])) / 2)
        np.testing.assert_allclose(scores, mean, rtol=0, atol=ROUNDING)
    assert toy.translate(f"{small_datastore}:{other_datastore}", model=models).bleu > 50


def test_an_ensemble_with_a_missing_datastore_is_refused(
    datastore: Path, other_model: Path, other_datastore: Path
) -> None:
    with pytest.raises(DatastoreError, match=r"no datastore among .* was built by the ensemble's"):
        toy.translate(datastore, model=f"{toy.BASE}:{other_model}")
    with pytest.raises(DatastoreError, match=r"was built by another model"):
        toy.translate(f"{datastore}:{other_datastore}")


def test_several_datastores_of_a_model_are_searched_as_one(tmp_path: Path) -> None:
    sides = [
        [sentence for split in ("test", "valid") for sentence in toy.read_side(toy.DOMAIN, split, language)]
        for language in ("de", "en")
    ]
    toy.write_split(tmp_path / "data", "train", *sides)
    # Sentence by sentence, so that equal sentences have equal keys.
    alone = ("--batch-size", 1)
    toy.build(tmp_path / "both", *alone, split="train", data=tmp_path / "data")
    for split in ("test", "valid"):
        toy.build(tmp_path / split, *alone, split=split)
    together = toy.translate(f"{tmp_path / 'test'}:{tmp_path / 'valid'}", "--score-reference", "--knn-k", 16)
    merged = toy.translate(tmp_path / "both", "--score-reference", "--knn-k", 16)
    assert together.lines() == merged.lines()


def test_forced_prefixes(datastore: Path) -> None:
    run = toy.translate(datastore, "--prefix-size", 2)
    references = run.texts("T")
    for i, text in run.texts().items():
        assert text.split()[:2] == references[i].split()[:2]
    assert len(references) == SENTENCES


def test_half_precision(datastore: Path, vanilla: cli.Run) -> None:
    half = toy.translate(datastore, "--fp16")
    assert half.bleu == pytest.approx(vanilla.bleu, abs=1.0)
    for scores in positional(half).values():
        assert np.isfinite(scores).all()
        assert (scores <= 0).all()


def test_backends_agree(datastore: Path, vanilla: cli.Run, references: cli.Run, tmp_path: Path) -> None:
    indexed = Path(shutil.copytree(datastore, tmp_path / "indexed"))
    assert fairseq_knn_main(["build-index", str(indexed), "--knn-index", "flat"]) == 0
    scoring = ("--score-reference", "--knn-backend")
    toy.assert_scores_close(toy.translate(datastore, *scoring, "torch"), references, ROUNDING)
    toy.assert_scores_close(toy.translate(indexed, *scoring, "faiss"), references, ROUNDING)
    toy.assert_scores_close(toy.translate(indexed, "--knn-backend", "faiss"), vanilla, ROUNDING, same=0.99)


def test_lambda_one_reproduces_the_datastore(test_datastore: Path) -> None:
    alone = ("--knn-lambda", 1, "--knn-k", 1)
    scored = positional(toy.translate(test_datastore, "--score-reference", *alone))
    assert sorted(scored) == list(range(SENTENCES))
    assert all((scores == 0).all() for scores in scored.values())
    translated = toy.translate(test_datastore, *alone)
    assert translated.texts() == translated.texts("T")
    assert translated.bleu == 100


def test_lambda_one_gives_minus_infinity_without_support(datastore: Path) -> None:
    run = toy.translate(datastore, "--score-reference", "--knn-lambda", 1, "--knn-k", 1)
    scores = np.concatenate(list(positional(run).values()))
    assert set(np.unique(scores)) == {-math.inf, 0.0}


def test_both_styles_of_checkpoints_are_one_model(datastore: Path, vanilla: cli.Run, tmp_path: Path) -> None:
    assert toy.translate(datastore, model=toy.ARGS_STYLE).lines() == vanilla.lines()
    toy.build(tmp_path / "args", split="valid", model=toy.ARGS_STYLE)
    toy.build(tmp_path / "cfg", split="valid")
    assert toy.content(tmp_path / "args") == toy.content(tmp_path / "cfg")


def test_results_path(datastore: Path, vanilla: cli.Run, tmp_path: Path) -> None:
    run = toy.translate(datastore, "--results-path", tmp_path / "results")
    assert run.status == 0
    written = cli.Run(0, (tmp_path / "results" / "generate-test.txt").read_text(), "")
    assert written.lines() == vanilla.lines()
    assert run.lines() == []


def test_ranks_share_the_sentences(datastore: Path, vanilla: cli.Run) -> None:
    found: dict[int, cli.Hypothesis] = {}
    for rank in range(3):
        part = toy.translate(datastore, "--distributed-world-size", 3, "--distributed-rank", rank)
        sentences = len(part.hypotheses())
        assert f"{sentences} of {sentences} sentences of 'test' processed" in part.closing_line
        assert found.keys().isdisjoint(part.hypotheses())
        found.update(part.hypotheses())
    assert found == vanilla.hypotheses()


def test_a_rank_without_sentences_ends_cleanly(datastore: Path) -> None:
    run = cli.run(
        "fairseq-generate",
        *(*toy.base_arguments(), "--user-dir", cli.PACKAGE, "--cpu"),
        *("--gen-subset", "test", "--knn-datastore-path", datastore),
        *("--distributed-world-size", 64, "--distributed-rank", 63),
    )
    assert run.status == 0, run.log
    assert "Traceback" not in run.log
    assert "0 of 0 sentences of 'test' processed" in run.closing_line
