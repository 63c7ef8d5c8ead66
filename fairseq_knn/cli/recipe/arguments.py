"""Recipes, steps and settings, told apart by their form."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import STEPS
from fairseq_knn.recipe.nearest import suggestion


@dataclass
class Asked:
    """What stands behind an action.

    Args:
        files: recipes.
        steps: names of steps.
        overrides: settings, as typed.
    """

    files: list[Path] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)


def sort_out(action: str, arguments: Sequence[str]) -> Asked:
    """Tell arguments apart: names of steps, recipes, which end in ``.yaml`` or are files, settings, which have a ``=``.

    Raises:
        ConfigurationError: there is no such step, or the action takes none or has to have one.
    """
    asked = Asked()
    for argument in arguments:
        if argument in STEPS:
            asked.steps.append(argument)
        elif (argument.endswith((".yaml", ".yml")) and "=" not in argument) or os.path.isfile(argument):
            asked.files.append(Path(argument))  # pathlib's is_file raises where a name is too long for one
        elif "=" in argument:
            asked.overrides.append(argument)
        else:
            raise ConfigurationError(
                f"there is no step {argument!r}: {suggestion(argument, STEPS)} (a recipe is a file, a setting is "
                "step.name=value)"
            )
    if action == "test" and not asked.steps:
        raise ConfigurationError(f"test needs a step: name one of {', '.join(STEPS)}")
    if action in ("train", "evaluate") and asked.steps:
        raise ConfigurationError(
            f"{action} takes all steps, and {asked.steps[0]} is one: leave it out, or try it with "
            f"`fairseq-knn recipe test {asked.steps[0]}`"
        )
    return asked
