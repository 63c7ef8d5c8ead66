"""The help of a recipe: every setting with its type, value, origin and meaning."""

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from fairseq_knn.recipe import components, values
from fairseq_knn.recipe.composing import COMPONENTS, STEPS, Recipe
from fairseq_knn.recipe.resolving import origin

_WIDTH = 110


def help_text(recipe: Recipe, steps: Sequence[str]) -> str:
    """The help, in lines.

    Args:
        recipe: resolved.
        steps: those to explain, with all settings of the chosen component and the names of others; if there are none,
            all steps, with the recipe's own settings.
    """
    lines = [recipe.title, ""]
    for step in steps or STEPS:
        lines += [*_step(recipe, step, bool(steps)), ""]
    if recipe.missing and not steps:
        lines += ["Still missing: " + ", ".join(sorted(recipe.missing)), ""]
    lines += _closing(steps)
    return "\n".join(lines)


def _step(recipe: Recipe, step: str, whole: bool) -> Iterator[str]:
    settings = getattr(recipe.settings, step)
    has_name = hasattr(settings, "_name")
    doc = (type(settings).__doc__ or "").strip()
    if has_name:
        yield f"**{step}** ({settings._name}, {origin(recipe, f'{step}._name')}): {doc}"
        named = next(entry for entry in dataclasses.fields(settings) if entry.name == "_name")
        yield from _missing(recipe, step)
        yield from _wrapped(f"{step}=NAME: {named.metadata['help']}", "  ")
    else:
        yield f"**{step}**: {doc}"
    applies = components.own(recipe, step) if step in COMPONENTS else None
    for entry in dataclasses.fields(settings):
        if entry.name != "_name" and (applies is None or entry.name in applies):
            yield from _setting(recipe, step, entry)
    for name, value in recipe.extra.get(step, {}).items():
        yield f"  {step}.{name} = {_shown(value)} ({origin(recipe, f'{step}.{name}')})"
    known = {f"{step}.{entry.name}" for entry in dataclasses.fields(settings)}
    for full in sorted(recipe.missing - known):
        if full.startswith(f"{step}."):
            yield from _missing(recipe, full)
    if whole and step in COMPONENTS:
        yield from _component(recipe, step)


def _setting(recipe: Recipe, step: str, entry: dataclasses.Field[Any]) -> Iterator[str]:
    full = f"{step}.{entry.name}"
    kind, _ = values.kind_of(entry)
    value = getattr(getattr(recipe.settings, step), entry.name)
    if full in recipe.missing:
        yield from _missing(recipe, full, f" ({kind.__name__})")
    else:
        yield f"  {full} ({kind.__name__}) = {_shown(value)} ({origin(recipe, full)})"
    yield from _wrapped(entry.metadata["help"], "      ")


def _missing(recipe: Recipe, full: str, kind: str = "") -> Iterator[str]:
    if full in recipe.missing:
        yield f"  {full}{kind}: !!! No {full} specified !!!"


def _component(recipe: Recipe, step: str) -> Iterator[str]:
    """Further settings of what is chosen, and what could be chosen instead."""
    name = recipe.name_of(step)
    further = {
        option: described
        for option, described in components.options(step, name).items()
        if f"{step}.{option}" not in recipe.missing
        and option not in recipe.extra[step]
        and option not in components.own(recipe, step)
    }
    if further:
        yield ""
        yield f"  Further settings of {name}, with fairseq's defaults:"
    for option, described in further.items():
        default = "" if described.default is None else f" = {_shown(described.default)}"
        yield f"  {step}.{option}{default}"
        yield from _wrapped(" ".join(described.help.replace("%%", "%").split()), "      ")
    yield ""
    yield f"  Names to choose from, {step}=NAME:"
    yield from _wrapped(", ".join(components.registered(step)), "      ")


def _closing(steps: Sequence[str]) -> Iterator[str]:
    yield "Set one:         step.name=value, such as model.dim=256; in YAML the step and, indented below, name: value"
    yield "Replace a step:  step=NAME, such as criterion=cross_entropy; in YAML _name: NAME below the step"
    yield "Use your code:   code.user_dir=DIRECTORY, and the names it registers"
    if not steps:
        yield "More about one:  fairseq-knn recipe help STEP, with all of its settings and the names to choose from"
        yield "Try one alone:   fairseq-knn recipe test STEP"
        yield "Then:            fairseq-knn recipe train, and fairseq-knn recipe evaluate"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
