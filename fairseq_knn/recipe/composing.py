"""The settings of a recipe: defaults, over them YAML files, over them the command line."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe import values
from fairseq_knn.recipe.nearest import suggestion
from fairseq_knn.recipe.settings import Settings

COMMAND_LINE = "command line"
TITLE = "A translation model from sentence pairs"

# Steps whose component is one of fairseq's or of the user's, with settings of its own.
COMPONENTS = ("tokenizer", "model", "task", "criterion", "optimizer", "schedule")
# The recipe's settings of such steps that hold whatever component is chosen.
ALWAYS: dict[str, set[str]] = {"optimizer": {"lr", "clip_norm"}}
STEPS = tuple(step.name for step in dataclasses.fields(Settings))


@dataclass
class Recipe:
    """A recipe, put together.

    Args:
        settings: of all steps.
        extra: by step, settings that are the chosen component's own.
        origins: by the full names (``model.dim``) of settings that are given, the file or ``command line`` they are
            from.
        missing: full names of settings that are given as ``???``.
        title: first line of the (last) file.
    """

    settings: Settings = field(default_factory=Settings)
    extra: dict[str, dict[str, Any]] = field(default_factory=lambda: {step: {} for step in COMPONENTS})
    origins: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    title: str = TITLE

    def name_of(self, step: str) -> str:
        """The component that a step has chosen."""
        name: str = getattr(self.settings, step)._name
        return name

    def is_given(self, step: str, name: str) -> bool:
        return f"{step}.{name}" in self.origins


def compose(files: Sequence[Path], overrides: Sequence[str]) -> Recipe:
    """Put a recipe together.

    A source that chooses another component than those before it starts that step anew: what they have set was for
    their component. The further settings of components are taken as they are, until
    :func:`fairseq_knn.recipe.components.check` sees them.

    Args:
        files: YAML, each with what differs from those before it, and the first from the defaults.
        overrides: ``step.name=value`` or ``step=NAME``, as typed.

    Raises:
        ConfigurationError: a file cannot be read, or a step, a setting or a value is not one.
    """
    recipe = Recipe()
    for path in files:
        for step, content in _read(path).items():
            _known_step(str(step), f"{path}: ")
            if isinstance(content, str) and content != values.MISSING:
                content = {"_name": content}
            if content is None:  # a head below which everything is commented out
                continue
            if not isinstance(content, Mapping):
                raise ConfigurationError(
                    f"{path}: {step} is {content!r}, but a step has settings: write {step}: and below it, indented, "
                    "name: value"
                )
            for name, value in sorted(content.items(), key=_names_first):
                _set(recipe, str(step), str(name), value, None, str(path))
        recipe.title = _title(path)
    typed = []
    for override in overrides:
        place, _, text = override.partition("=")
        step, _, name = place.partition(".")
        _known_step(step, f"{override}: ")
        typed.append((name or "_name", (step, place, text)))
    for name, (step, place, text) in sorted(typed, key=_names_first):
        _set(recipe, step, name, values.read(place, text), text, COMMAND_LINE)
    return recipe


def _names_first(setting: tuple[Any, Any]) -> bool:
    return bool(setting[0] != "_name")


def _set(recipe: Recipe, step: str, name: str, value: Any, typed: str | None, origin: str) -> None:
    settings = getattr(recipe.settings, step)
    fields = {entry.name: entry for entry in dataclasses.fields(settings)}
    full = step if name == "_name" else f"{step}.{name}"
    where = "" if origin == COMMAND_LINE else f"{origin}: "
    if name not in fields and step not in COMPONENTS:
        if name == "_name":
            raise ConfigurationError(f"{where}{step} has no components to choose from: set {step}.NAME instead")
        known = (f"{step}.{field}" for field in fields if field != "_name")
        raise ConfigurationError(f"{where}there is no setting {full}: {suggestion(full, known)}")
    if name == "_name" and step in COMPONENTS and value != settings._name:
        _start_anew(recipe, step)
    recipe.origins[f"{step}.{name}"] = origin
    recipe.missing.discard(full)
    if value == values.MISSING:
        recipe.missing.add(full)
    elif name in fields:
        setattr(settings, name, values.checked(f"{where}{full}", value, fields[name], typed))
    else:
        recipe.extra[step][name] = value


def _start_anew(recipe: Recipe, step: str) -> None:
    """Forget what was set for another component."""
    settings = getattr(recipe.settings, step)
    for entry in dataclasses.fields(settings):
        if entry.name not in ALWAYS.get(step, ()):
            setattr(settings, entry.name, entry.default)
            recipe.origins.pop(f"{step}.{entry.name}", None)
            recipe.missing.discard(f"{step}.{entry.name}")
    for name in recipe.extra[step]:
        recipe.origins.pop(f"{step}.{name}", None)
        recipe.missing.discard(f"{step}.{name}")
    recipe.extra[step].clear()


def _known_step(step: str, where: str) -> None:
    if step not in STEPS:
        raise ConfigurationError(f"{where}there is no step {step!r}: {suggestion(step, STEPS)}")


def _read(path: Path) -> dict[Any, Any]:
    """The content of a YAML file."""
    try:
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig):
            raise ConfigurationError(f"{path} is no recipe: it has to be YAML with a step at the head of each part")
        read: Any = OmegaConf.to_container(content, resolve=True)
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no recipe {path}: correct the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as a recipe ({error}): name a YAML file") from error
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigurationError(f"{path} is no sound YAML ({' '.join(str(error).split())}): correct it") from error
    return dict(read)


def _title(path: Path) -> str:
    """The first line of a file, where it is a comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else TITLE
