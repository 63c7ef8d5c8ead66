"""Whether a training that is there is the one that is asked for, and whether it is finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import Recipe, compose
from fairseq_knn.recipe.yaml_files import RECIPE, flat, resolved
from fairseq_knn.storage.atomic import read_json, write_json

_LAST, _BEST = "checkpoint_last.pt", "checkpoint_best.pt"
_FINISHED = "finished.json"
# What ends training; with more of it, a finished training goes on.
_ENDS = ("max_update", "max_epoch", "patience")
# Steps and settings that may change while a training goes on: they change no update. The text is compared by its
# checksum, wherever it is.
_FREE_STEPS = {"device", "evaluation", "test_data", "code"}
_FREE = {
    *(f"training.{name}" for name in (*_ENDS, "save_dir", "log_every", "validate_every")),
    *("pairs.file", "pairs.directory", "tokenizer.path", "train_data.num_workers", "valid_data.batch_size"),
}


def can_go_on(directory: Path) -> bool:
    """Whether there is a training to go on with."""
    return (directory / _LAST).exists()


def check_same(recipe: Recipe, directory: Path) -> None:
    """Refuse to go on with a training of other settings.

    Raises:
        ConfigurationError: names the first setting that differs, or the checkpoint that would be overwritten.
    """
    if not can_go_on(directory):
        # Beside it, one that was interrupted while its first checkpoint was written has that of an update.
        if list(directory.glob("checkpoint*.pt")) == [directory / _BEST]:
            raise ConfigurationError(
                f"{directory} holds {_BEST}, but no {_LAST} to go on from, and a new training would overwrite it: "
                "choose another training.save_dir"
            )
        return
    path = directory / RECIPE
    if not path.exists():
        raise ConfigurationError(
            f"{directory} holds a training ({_LAST}) that no recipe has made: choose another training.save_dir"
        )
    kept, asked = flat(resolved(compose([path], []))), flat(resolved(recipe))
    for name in dict.fromkeys([*asked, *kept]):
        if name in _FREE or name.partition(".")[0] in _FREE_STEPS:
            continue
        if kept.get(name) != asked.get(name):
            shown = name.removesuffix("._name")
            raise ConfigurationError(
                f"{directory} holds a training with {shown}={_shown(kept.get(name))}, and {shown}="
                f"{_shown(asked.get(name))} is asked for: set it back to go on, or choose another training.save_dir"
            )


def is_finished(recipe: Recipe, directory: Path) -> bool:
    """Whether the training has ended by what is asked for: stock fairseq would go on for an update or more."""
    if not can_go_on(directory):
        return False
    training = recipe.settings.training
    if training.max_update and updates(directory / _LAST) >= training.max_update:
        return True
    try:
        ended: Mapping[str, Any] = read_json(directory / _FINISHED)
    except FileNotFoundError:
        return False
    return ended == _ends(recipe)


def note_begun(directory: Path) -> None:
    """Forget how an earlier training here has ended."""
    (directory / _FINISHED).unlink(missing_ok=True)


def note_finished(recipe: Recipe, directory: Path) -> None:
    """Keep by which settings the training has ended."""
    write_json(directory / _FINISHED, _ends(recipe))


def updates(checkpoint: Path) -> int:
    """Updates that a checkpoint's model has had. Only what stands beside the tensors is read.

    Raises:
        ConfigurationError: it is damaged, or none of a training.
    """
    import torch

    try:
        state = torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True)
        return int(state["optimizer_history"][-1]["num_updates"])
    except Exception as error:  # torch raises errors of many kinds on a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigurationError(
            f"{checkpoint} cannot be gone on from ({reason}): it is damaged or none of a training; put back one "
            "that is whole, or choose another training.save_dir"
        ) from error


def _ends(recipe: Recipe) -> dict[str, int]:
    return {name: getattr(recipe.settings.training, name) for name in _ENDS}


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
