"""YAML files of a training: the recipe with everything filled in, and fairseq's configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fairseq_knn.recipe import components
from fairseq_knn.recipe.composing import COMPONENTS, STEPS, Recipe
from fairseq_knn.recipe.resolving import usual_tokenizer
from fairseq_knn.storage.atomic import atomic_path

RECIPE = "recipe.yaml"
FAIRSEQ = "fairseq.yaml"


def resolved(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Every setting of every step that holds for the chosen components.

    Args:
        recipe: resolved and checked.
    """
    content = {}
    for step in STEPS:
        settings = getattr(recipe.settings, step)
        if step in COMPONENTS:
            content[step] = {"_name": settings._name, **components.own(recipe, step), **recipe.extra[step]}
        else:
            content[step] = dataclasses.asdict(settings)
    if content["tokenizer"].get("path") == usual_tokenizer(recipe.settings):
        content["tokenizer"]["path"] = None  # so that it is found where pairs.directory has been moved to
    return content


def flat(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Values by their full names, ``step.name``."""
    return {f"{step}.{name}": value for step, settings in content.items() for name, value in settings.items()}


def write_yaml(path: Path, comments: Sequence[str], content: Mapping[str, Any]) -> None:
    """Write a file atomically; equal contents give equal bytes.

    Raises:
        UserError: it cannot be written.
    """
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{head}\n{OmegaConf.to_yaml(OmegaConf.create(dict(content)))}", encoding="utf-8")
