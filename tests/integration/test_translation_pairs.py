"""Stock fairseq-train on sentence pairs that are shuffled window by window."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_knn.errors import ConfigurationError
from tests import cli, toy

PAIRS = toy.DOMAIN
# An epoch has batches of 32, 32, 32, 4, as many again, and one of a single pair.
WINDOWS = ("--shuffle-window", 100)


def train(directory: Path, *arguments: object, task: str = "translation_pairs") -> Path:
    """Train on few pairs; the last checkpoint."""
    run = toy.train_pairs(directory, *arguments, task=task)
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"


def assert_same_training(one: Path, other: Path) -> None:
    """Parameters, moments and what is read next are the same, bit by bit."""
    left, right = (torch.load(path, weights_only=True) for path in (one, other))
    assert_equal(left["model"], right["model"])
    assert_equal(left["last_optimizer_state"], right["last_optimizer_state"])
    assert left["extra_state"]["train_iterator"] == right["extra_state"]["train_iterator"]


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of nine batches, five updates each, with a checkpoint within the second."""
    directory = tmp_path_factory.mktemp("straight")
    train(directory, *WINDOWS, "--max-epoch", 3, "--update-freq", 2, "--save-interval-updates", 7)
    return directory


def test_a_run_goes_on_within_an_epoch(trained: Path, tmp_path: Path) -> None:
    shutil.copy(trained / "checkpoint_2_7.pt", tmp_path / "checkpoint_last.pt")
    resumed = train(tmp_path, *WINDOWS, "--max-epoch", 3, "--update-freq", 2)
    assert_same_training(resumed, trained / "checkpoint_last.pt")


def test_a_run_goes_on_after_an_epoch(trained: Path, tmp_path: Path) -> None:
    for epochs in (1, 3):
        last = train(tmp_path, *WINDOWS, "--max-epoch", epochs, "--update-freq", 2)
    assert_same_training(last, trained / "checkpoint_last.pt")


def test_one_window_trains_as_stock(tmp_path: Path) -> None:
    """Where stock drops no pairs."""
    arguments = ("--max-epoch", 2, "--required-batch-size-multiple", 1)
    stock = train(tmp_path / "stock", *arguments, task="translation")
    ours = train(tmp_path / "ours", *arguments, "--shuffle-window", toy.VALID_SENTENCES)
    assert_same_training(ours, stock)


def test_windows_make_a_difference(trained: Path, tmp_path: Path) -> None:
    other = train(tmp_path, "--shuffle-window", 0, "--max-epoch", 3, "--update-freq", 2)
    with pytest.raises(AssertionError):
        assert_same_training(other, trained / "checkpoint_last.pt")


def test_every_sentence_is_processed(trained: Path, tmp_path: Path) -> None:
    path = ("--path", trained / "checkpoint_last.pt")
    ours = cli.generate(PAIRS, "--task", "translation_pairs", *path, "--batch-size", 50, "--beam", 2)
    assert len(ours.lines("H")) == toy.TEST_SENTENCES
    assert ours.closing_line == '203 of 203 sentences of \'test\' processed | {"sentences": 203, "left_out": 0}'
    multiple = ("--required-batch-size-multiple", 1)
    stock = cli.generate(PAIRS, "--task", "translation", *path, "--batch-size", 50, "--beam", 2, *multiple)
    assert stock.lines() == ours.lines()
    validated = cli.call(
        *("fairseq-validate", PAIRS, "--task", "translation_pairs", *path, "--valid-subset", "test", "--cpu"),
        *("--batch-size", 50, "--user-dir", cli.PACKAGE, "--num-workers", 0),
    )
    assert validated.closing_line.startswith("203 of 203 sentences of 'test' processed")


def test_text_goes_in_and_out(trained: Path, tmp_path: Path) -> None:
    from fairseq.models.transformer import TransformerModel

    lines = (toy.TOY / "domain.test.de").read_text().splitlines()[:3]
    text = tmp_path / "text"
    text.write_text("".join(f"{line}\n" for line in lines))
    run = cli.call(
        *("fairseq-interactive", PAIRS, "--path", trained / "checkpoint_last.pt", "--task", "translation_pairs"),
        *("--user-dir", cli.PACKAGE, "--cpu", "--beam", 5, "--input", text),
    )
    assert run.closing_line.startswith("3 sentences processed"), run.log[-2000:]
    hub = TransformerModel.from_pretrained(str(trained), "checkpoint_last.pt", data_name_or_path=str(PAIRS))
    assert hub.translate(lines, beam=5) == list(run.texts("D").values())


def test_what_is_wrong_is_told_in_a_sentence(trained: Path, tmp_path: Path) -> None:
    for arguments, told in (
        (("--shuffle-window", -1), "--shuffle-window is -1"),
        (("--grouped-shuffling",), "--grouped-shuffling is not available"),
        (("--train-subset", "training"), "Dataset not found: training"),
        (("--source-lang", "xx", "--target-lang", "en"), "there is no dictionary"),
        (("--max-tokens", 1), "all 201 training pairs are longer"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            train(tmp_path, *arguments)
    path = ("--path", trained / "checkpoint_last.pt", "--task", "translation_pairs")
    with pytest.raises(ConfigurationError, match=r"sentences are longer than the .* tokens the model takes"):
        cli.generate(PAIRS, *path, "--max-source-positions", 5)
    with pytest.raises(ConfigurationError, match="check the data directory"):
        cli.generate(PAIRS, *path, "--gen-subset", "tests")
