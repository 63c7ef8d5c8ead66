"""What may change where a training goes on."""

from pathlib import Path

import pytest
import torch

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import Recipe, compose
from fairseq_knn.recipe.going_on import check_same, is_finished, note_begun, note_finished
from fairseq_knn.recipe.resolving import resolve
from fairseq_knn.recipe.yaml_files import RECIPE, resolved, write_yaml


def made(*overrides: str) -> Recipe:
    recipe = compose([], overrides)
    resolve(recipe)
    return recipe


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A directory with a training of the default recipe, after five updates."""
    write_yaml(tmp_path / RECIPE, ["A title"], resolved(made()))
    torch.save({"optimizer_history": [{"num_updates": 5}]}, tmp_path / "checkpoint_last.pt")
    return tmp_path


def test_what_is_written_is_read_again(training: Path) -> None:
    again = compose([training / RECIPE], [])
    resolve(again)
    assert again.title == "A title"
    assert again.settings == made().settings
    check_same(again, training)


def test_text_that_yaml_takes_for_something_else_is_read_again(tmp_path: Path) -> None:
    recipe = made("pairs.source=no", "pairs.target=1e3", "training.save_dir=007", "pairs.file=a: b #c.tsv")
    write_yaml(tmp_path / RECIPE, [], resolved(recipe))
    again = compose([tmp_path / RECIPE], [])
    resolve(again)
    assert again.settings == recipe.settings


def test_what_changes_no_update_may_change(training: Path) -> None:
    check_same(
        made(
            *("training.max_update=20000", "training.patience=3", "training.log_every=1", "device.kind=cpu"),
            *("evaluation.beam=1", "pairs.directory=elsewhere", "pairs.file=moved.tsv", "test_data.batch_size=1"),
        ),
        training,
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dim=64", r"holds a training with model\.dim=128, and model\.dim=64 is asked for"),
        ("pairs.sha256=abc", r"pairs\.sha256=nothing, and pairs\.sha256=abc"),
        ("criterion.label_smoothing=0", r"criterion\.label_smoothing=0\.1"),
        ("training.seed=2", r"training\.seed=1, and training\.seed=2"),
    ],
)
def test_the_first_difference_is_named(override: str, message: str, training: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_same(made(override), training)


def test_a_training_that_has_not_begun_may_be_another(training: Path) -> None:
    (training / "checkpoint_last.pt").unlink()
    check_same(made("model.dim=64"), training)


def test_a_training_that_no_recipe_has_made_is_left_alone(training: Path) -> None:
    (training / RECIPE).unlink()
    with pytest.raises(ConfigurationError, match="that no recipe has made"):
        check_same(made(), training)


def test_finished_by_updates_or_as_noted(training: Path) -> None:
    assert is_finished(made("training.max_update=5"), training)
    early = made("training.max_update=100", "training.patience=2")
    assert not is_finished(early, training)
    note_finished(early, training)
    assert is_finished(early, training)
    assert not is_finished(made("training.max_update=100", "training.patience=4"), training)
    note_begun(training)
    assert not is_finished(early, training)


def test_a_best_checkpoint_alone_is_not_overwritten(training: Path) -> None:
    (training / "checkpoint_last.pt").rename(training / "checkpoint_best.pt")
    with pytest.raises(ConfigurationError, match=r"holds checkpoint_best\.pt, but no checkpoint_last\.pt"):
        check_same(made(), training)
    # Interrupted while the first checkpoint was copied: nothing to go on from, nothing to lose.
    (training / "checkpoint_1_10.pt").touch()
    check_same(made("model.dim=64"), training)


def test_a_checkpoint_that_is_damaged(training: Path) -> None:
    (training / "checkpoint_last.pt").write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match=r"checkpoint_last\.pt cannot be gone on from .*: it is damaged"):
        is_finished(made(), training)


def test_a_directory_that_was_moved_has_its_tokenizer_with_it(tmp_path: Path) -> None:
    write_yaml(tmp_path / RECIPE, [], resolved(made("pairs.directory=here")))
    moved = compose([tmp_path / RECIPE], ["pairs.directory=there"])
    resolve(moved)
    assert moved.settings.tokenizer.path == "there/eng-fra.5000.model"
