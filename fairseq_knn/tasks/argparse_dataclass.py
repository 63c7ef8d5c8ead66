"""Settings of stock tasks that know argparse alone, as a dataclass, which is what fairseq-hydra-train takes.

A task built on such a stock task registers a dataclass made by :func:`dataclass_of` and hands its stock task what
:func:`namespace_of` makes of the configuration. Between the two, what a flag was given stays text: fairseq writes the
settings of a command line as hydra overrides, in which dictionaries and tuples cannot be said.
"""

import argparse
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from dataclasses import field, fields, make_dataclass
from enum import Enum
from typing import Any, NoReturn, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from omegaconf import II, DictConfig, OmegaConf

from fairseq_knn.errors import ConfigurationError

AddArguments = Callable[[ArgumentParser], None]

_STORE = type(ArgumentParser().add_argument("stored"))  # what argparse does unless an action is named


def dataclass_of(
    name: str, *add_arguments: AddArguments, interpolated: Mapping[str, str] | None = None
) -> type[FairseqDataclass]:
    """A dataclass with a field for every flag: its name, default, help, choices and short form.

    fairseq makes the same flags of it again. Flags that argparse converts in a way of their own (to a list, a
    dictionary, the content of a file) become fields of any type, so that YAML may hold lists and dictionaries.

    Args:
        name: of the dataclass.
        add_arguments: put flags into a parser, as a stock task's ``add_args`` does.
        interpolated: settings of other groups that the stock task reads from its namespace, with where they stand, such
            as ``{"seed": "common.seed"}``. They make no flags.

    Raises:
        ValueError: fairseq cannot make a flag again of what is added.
    """
    described = [_field(action) for action in _Reader(add_arguments).actions]
    # Without a help text fairseq makes no flag of an interpolation.
    described += [(setting, Any, field(default=II(place))) for setting, place in (interpolated or {}).items()]
    return make_dataclass(name, described, bases=(FairseqDataclass,))


def namespace_of(cfg: Any, *add_arguments: AddArguments) -> Namespace:
    """What a stock task expects: as if the settings had been flags, read by its own parser.

    Settings that are no flags are taken over. ``None`` stands for a flag that is not given. A list is read as its
    elements with commas between them, a dictionary as it is written in Python.

    Args:
        cfg: settings of the task: a DictConfig, the dataclass, or a Namespace (in older checkpoints), whose values may
            have been read before.
        add_arguments: those the dataclass was made with.

    Raises:
        ConfigurationError: the parser refuses a setting or misses one.
    """
    settings = _settings(cfg)
    reader = _Reader(add_arguments)
    flags, positional = [], []
    for action in reader.actions:
        value = settings.pop(action.dest, None)
        if value is None:
            continue
        if not action.option_strings:
            positional.append(_text(value))
        elif action.nargs != 0:
            flags.append(f"{action.option_strings[-1]}={_text(value)}")
        elif bool(value) == action.const:
            flags.append(action.option_strings[-1])
    if positional:
        flags += ["--", *positional]
    return reader.parse_args(flags, Namespace(**settings))


class _Reader(ArgumentParser):
    """A parser of settings, whose errors are the user's to mend."""

    def __init__(self, add_arguments: tuple[AddArguments, ...]) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        for add in add_arguments:
            add(self)
        for action in self.actions:
            if callable(action.type):
                action.type = _told(action.type)

    @property
    def actions(self) -> list[Action]:
        return self._actions

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(
            f"the task does not understand its settings ({message}): correct the flag, or its line under task: in YAML"
        )


def _told(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """*read* as the parser calls it, with an error of the parser's whatever goes wrong: fairseq evaluates text."""
    if read in (str, int, float):  # argparse names them better
        return read

    def convert(text: str) -> Any:
        try:
            return read(text)
        except Exception as error:
            raise ArgumentTypeError(f"{text!r} cannot be read: {error}") from error

    return convert


def _field(action: Action) -> tuple[str, Any, Any]:
    """Name, type and field."""
    flag = f"--{action.dest.replace('_', '-')}"
    short = [option for option in action.option_strings if option != flag]
    is_switch = action.nargs == 0 and isinstance(action.const, bool) and action.default is not action.const
    if (
        action.option_strings[-1:] not in ([flag], [])
        or len(short) > 1
        or not (action.nargs is None or is_switch)
        or (not action.option_strings and action.dest != "data")
    ):
        raise ValueError(f"{'/'.join(action.option_strings) or action.dest} has no equal among fairseq's dataclasses")
    default = None if action.default is argparse.SUPPRESS else action.default
    metadata: dict[str, Any] = {"help": action.help}
    if short:
        metadata["argparse_alias"] = short[0]
    described: Any = field(default=default, metadata=metadata)
    return action.dest, _type(action, default), described


def _type(action: Action, default: Any) -> Any:
    """The type from which fairseq makes the same flag again."""
    if action.nargs == 0:
        return bool
    kind: Any = Any
    if action.choices is not None:
        kind = ChoiceEnum([str(choice) for choice in action.choices])
    elif action.type in (int, float):
        kind = action.type
    elif (action.type in (None, str) and type(action) is _STORE) or not action.option_strings:
        kind = str
    return Optional[kind] if default is None and kind is not Any else kind  # noqa: UP045  # see KnnConfig


def _settings(cfg: Any) -> dict[str, Any]:
    """All settings of a task by name, in plain Python."""
    if isinstance(cfg, DictConfig):
        values: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        return dict(values)
    names = vars(cfg) if isinstance(cfg, Namespace) else [entry.name for entry in fields(cfg)]
    return {name: _resolved(getattr(cfg, name)) for name in names}


def _resolved(value: Any) -> Any:
    """Outside a configuration an interpolation stands for a setting that nobody has given: it is fairseq's default."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str) and value.startswith("${"):
        return OmegaConf.select(OmegaConf.structured(FairseqConfig), value[2:-1])
    return value


def _text(value: Any) -> str:
    """A value as it is written behind a flag."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
