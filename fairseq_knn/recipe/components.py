"""The components that fairseq or the user has registered: their names, and settings of their own.

Only here and below is fairseq imported, which takes seconds.
"""

import argparse
import dataclasses
import enum
from argparse import Action, Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import ALWAYS, COMPONENTS, Recipe
from fairseq_knn.recipe.nearest import suggestion
from fairseq_knn.recipe.settings import Settings
from fairseq_knn.recipe.values import MISSING

TRANSFORMER = "transformer"  # the architecture that the recipe has short settings for

_REGISTRIES = {"criterion": "criterion", "optimizer": "optimizer", "schedule": "lr_scheduler", "tokenizer": "bpe"}
# What the recipe sets itself: by other settings, or from what is made.
_OURS = {
    # Pieces that are drawn anew each time cannot be: the text is cut once.
    "tokenizer": {"sentencepiece_model", "sentencepiece_enable_sampling", "sentencepiece_alpha"},
    "model": {"arch"},
    "task": {"data", "source_lang", "target_lang", "shuffle_window", "train_subset"},
    "optimizer": {"lr", "tpu"},
    "schedule": {"lr"},
}


@dataclass(frozen=True)
class Option:
    """A setting of a component's own.

    Args:
        default: what fairseq takes where nothing is given; ``None`` where the architecture or another step decides.
        help: a sentence, or nothing.
        action: of the parser, where the component describes its settings as flags.
    """

    default: Any
    help: str
    action: Action | None = None


def defaults_of(step: str) -> dict[str, Any]:
    """The recipe's own settings of a step, without ``_name``."""
    settings = getattr(Settings(), step)
    return {
        entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(settings) if entry.name != "_name"
    }


def is_default(recipe: Recipe, step: str) -> bool:
    """Whether a step has the recipe's own component, with no further settings: nobody needs to look it up."""
    return recipe.name_of(step) == getattr(Settings(), step)._name and not recipe.extra[step]


def registered(step: str) -> list[str]:
    """Names that a step's ``_name`` may be."""
    return sorted(_registry(step))


def options(step: str, name: str) -> dict[str, Option]:
    """The settings of a component's own.

    Raises:
        ConfigurationError: there is no component of this name.
    """
    described = _dataclass(step, name)
    if described is not None:
        found = {
            entry.name: Option(_default(entry), str(entry.metadata.get("help") or ""))
            for entry in dataclasses.fields(described)
            if not entry.name.startswith("_")
        }
    else:
        found = {action.dest: Option(_stated(action), action.help or "", action) for action in actions(step, name)}
    return {option: found[option] for option in found if option not in _OURS.get(step, ())}


def actions(step: str, name: str) -> list[Action]:
    """The flags by which a component that has no dataclass describes its settings."""
    component = _class(step, name)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    if hasattr(component, "add_args"):
        component.add_args(parser)
    return parser._actions


def own(recipe: Recipe, step: str) -> dict[str, Any]:
    """The recipe's settings of a step that hold for the chosen component, without ``_name``."""
    chosen = getattr(recipe.settings, step)
    settings = {name: getattr(chosen, name) for name in defaults_of(step)}
    if recipe.name_of(step) == getattr(Settings(), step)._name:
        return settings
    known = set() if step == "model" else set(options(step, recipe.name_of(step)))
    return {name: value for name, value in settings.items() if name in known | ALWAYS.get(step, set())}


def check(recipe: Recipe) -> None:
    """Hold what is given against what the chosen components know.

    Settings of the recipe's transformer that another architecture has by the same name become its own. Values are put
    into the form the component takes. What a component has to be given, and is not, is noted as missing.

    Raises:
        ConfigurationError: there is no such component, it has no such setting, or takes no such value.
    """
    for step in COMPONENTS:
        if is_default(recipe, step):
            continue
        name = recipe.name_of(step)
        known = options(step, name)
        if step == "task" and not has_dataclass(step, name):
            raise ConfigurationError(
                f"the task {name} describes its settings by flags, which fairseq-hydra-train does not take: choose one "
                "that is registered with a dataclass"
            )
        given = {setting for setting in defaults_of(step) if recipe.is_given(step, setting)}
        if name != getattr(Settings(), step)._name:
            for setting in sorted(given - ALWAYS.get(step, set()) - set(known)):
                raise ConfigurationError(
                    f"{step}.{setting} is given, but {step} is {name}, which has no such setting: "
                    f"{suggestion(f'{step}.{setting}', _full(step, known))} ("
                    f"`fairseq-knn recipe help {step} {step}={name}` shows all)"
                )
            if step == "model":
                chosen = getattr(recipe.settings, step)
                recipe.extra[step].update({setting: getattr(chosen, setting) for setting in given})
        recipe.missing |= {
            f"{step}.{setting}"
            for setting, option in known.items()
            if option.default == MISSING and setting not in recipe.extra[step]
        }
        for setting, value in recipe.extra[step].items():
            if setting not in known:
                full = f"{step}.{setting}"
                raise ConfigurationError(
                    f"there is no setting {full}: {suggestion(full, _full(step, known, own(recipe, step)))} "
                    f"(`fairseq-knn recipe help {step} {step}={name}` shows all)"
                )
            recipe.extra[step][setting] = _checked(step, name, setting, value, known[setting])


def _full(step: str, *known: Iterable[str]) -> list[str]:
    return [f"{step}.{name}" for names in known for name in names]


def _checked(step: str, name: str, setting: str, value: Any, option: Option) -> Any:
    described = _dataclass(step, name)
    try:
        if option.action is not None:
            return _as_flag(option.action, value)
        from omegaconf import OmegaConf

        merged = OmegaConf.merge(OmegaConf.structured(described), {setting: value})
        OmegaConf.to_container(merged, resolve=False)
        return value
    except Exception as error:  # whatever a component's own conversion raises
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"{step}.{setting} cannot be {value!r} ({reason}): correct it") from error


def _as_flag(action: Action, value: Any) -> Any:
    """A value as the component would get it from a flag, as far as YAML can say that.

    Raises:
        ValueError: the flag takes no such value.
    """
    if value is None:
        return None
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError("it is true or false")
        return value
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    converted = action.type(text) if callable(action.type) else text
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"it is one of {', '.join(map(str, action.choices))}")
    return converted if isinstance(converted, bool | int | float | str | list) else value


def _class(step: str, name: str) -> Any:
    known = _registry(step)
    if name not in known:
        raise ConfigurationError(
            f"there is no {step} {name!r}: {suggestion(name, known)} (code of yours is found when code.user_dir names "
            "its directory)"
        )
    return known[name]


def _registry(step: str) -> Mapping[str, Any]:
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_REGISTRY

    known: Mapping[str, Any]
    if step == "model":
        known = ARCH_MODEL_REGISTRY
    elif step == "task":
        known = TASK_REGISTRY
    else:
        known = REGISTRIES[_REGISTRIES[step]]["registry"]
    return known


def _dataclass(step: str, name: str) -> Any:
    """The dataclass of a component's settings, or ``None``."""
    _class(step, name)
    if step == "model":
        from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY

        return MODEL_DATACLASS_REGISTRY.get(ARCH_MODEL_NAME_REGISTRY[name])
    if step == "task":
        from fairseq.tasks import TASK_DATACLASS_REGISTRY

        return TASK_DATACLASS_REGISTRY.get(name)
    from fairseq.registry import REGISTRIES

    return REGISTRIES[_REGISTRIES[step]]["dataclass_registry"].get(name)


def architecture(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an architecture that describes itself by flags, as its own function fills them in."""
    from fairseq.models import ARCH_CONFIG_REGISTRY
    from fairseq.models.transformer.transformer_config import DEFAULT_MIN_PARAMS_TO_WRAP

    stated = {action.dest: action.default for action in actions("model", name)}
    chosen = Namespace(**{dest: value for dest, value in stated.items() if value is not argparse.SUPPRESS})
    for setting, value in settings.items():
        setattr(chosen, setting, value)
    ARCH_CONFIG_REGISTRY[name](chosen)
    # What fairseq's transformers would add while they are built.
    missing = {"min_params_to_wrap": DEFAULT_MIN_PARAMS_TO_WRAP} if "min_params_to_wrap" in stated else {}
    return {**missing, **vars(chosen)}


def has_dataclass(step: str, name: str) -> bool:
    return _dataclass(step, name) is not None


def _default(entry: dataclasses.Field[Any]) -> Any:
    value = entry.default if entry.default is not dataclasses.MISSING else None
    if isinstance(value, str) and value.startswith("${"):
        return None
    if entry.default_factory is not dataclasses.MISSING:
        value = entry.default_factory()
    return value.value if isinstance(value, enum.Enum) else value


def _stated(action: Action) -> Any:
    return None if action.default is argparse.SUPPRESS else action.default
