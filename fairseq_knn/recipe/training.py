"""Training: settings and what translation needs go beside the checkpoints, then stock fairseq-hydra-train runs."""

from pathlib import Path

from fairseq_knn.recipe import programs
from fairseq_knn.recipe.beside_checkpoint import check_beside, copy_beside, files_beside
from fairseq_knn.recipe.built import Built
from fairseq_knn.recipe.components import is_default
from fairseq_knn.recipe.composing import Recipe
from fairseq_knn.recipe.going_on import can_go_on, check_same, is_finished, note_begun, note_finished
from fairseq_knn.recipe.preparation import Preparation, Say
from fairseq_knn.recipe.resolving import check_device
from fairseq_knn.recipe.yaml_files import FAIRSEQ, RECIPE, resolved, write_yaml
from fairseq_knn.storage.atomic import make_directory

_PROGRAM = "fairseq-hydra-train"
_BUILT = ("task", "model", "criterion", "optimizer", "schedule")


def train(recipe: Recipe, say: Say) -> int:
    """Train, or go on with a training that was interrupted.

    Args:
        recipe: resolved and checked; the checksum of the pairs is noted in it.
        say: gets lines about what is done.

    Returns:
        The exit status of fairseq-hydra-train.

    Raises:
        ConfigurationError: the directory holds another training, or there is no such device.
        UserError: a step before the training cannot be taken.
    """
    directory = Path(str(recipe.settings.training.save_dir))
    check_device(recipe)
    preparation = Preparation(recipe, say)
    recipe.settings.pairs.sha256 = preparation.sha256
    check_same(recipe, directory)
    configuration = preparation.configuration()
    files = files_beside(preparation.tokenizer.files(), preparation.data, preparation.languages)
    if can_go_on(directory):
        check_beside(directory, files)
    if is_finished(recipe, directory):
        say(
            f"the training in {directory} is finished: `fairseq-knn recipe evaluate {directory / RECIPE}` scores it, "
            "and with a higher training.max_update it goes on"
        )
        return 0
    if not all(is_default(recipe, step) for step in _BUILT):
        built = Built(configuration)
        _ = built.model, built.criterion, built.schedule  # what they refuse is said here in a sentence
    make_directory(directory)
    copy_beside(directory, files)
    write_yaml(directory / RECIPE, _about_recipe(recipe, directory), resolved(recipe))
    write_yaml(directory / FAIRSEQ, _about_fairseq(directory), configuration)
    arguments = ["--config-dir", str(directory), "--config-name", Path(FAIRSEQ).stem]
    note_begun(directory)
    say(f"running {programs.shown(_PROGRAM, arguments)}")
    status = programs.run(_PROGRAM, arguments)
    if status == 0:
        note_finished(recipe, directory)
        say(f"trained: {directory}; `fairseq-knn recipe evaluate {directory / RECIPE}` scores it")
    return status


def _about_recipe(recipe: Recipe, directory: Path) -> list[str]:
    return [
        recipe.title,
        "",
        "Every setting of the training beside this file. To train again, with the same result:",
        f"  fairseq-knn recipe train {directory / RECIPE} training.save_dir=OTHER",
        "To score it:",
        f"  fairseq-knn recipe evaluate {directory / RECIPE}",
    ]


def _about_fairseq(directory: Path) -> list[str]:
    return [
        f"What {RECIPE} means to stock fairseq. fairseq-knn recipe train runs",
        f"  {programs.shown(_PROGRAM, ['--config-dir', str(directory), '--config-name', Path(FAIRSEQ).stem])}",
    ]
