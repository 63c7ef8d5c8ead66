"""Values of settings: read as YAML scalars, checked against the type of the field."""

import types
import typing
from dataclasses import Field
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_knn.errors import ConfigurationError

MISSING = "???"  # what somebody has to give

_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def read(name: str, text: str) -> Any:
    """A value as it is typed behind ``name=``: numbers, ``true``, ``null``, lists and anything else YAML knows.

    Raises:
        ConfigurationError: it is not YAML, or there is none, as of a shell's variable that nobody has set.
    """
    if not text.strip():
        raise ConfigurationError(f"{name}= has no value behind it: give one, or {name}=null for the default of none")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload, index]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigurationError(
            f"{name}={text} cannot be read as YAML ({' '.join(str(error).split())[:120]}): put quotes around the text"
        ) from error


def kind_of(field: Field[Any]) -> tuple[type, bool]:
    """The type of a field's values, and whether it may have none."""
    described: Any = field.type
    if isinstance(described, types.UnionType):
        (kind,) = (part for part in typing.get_args(described) if part is not type(None))
        return kind, True
    return described, False


def checked(name: str, value: Any, field: Field[Any], typed: str | None = None) -> Any:
    """A value as its field has it.

    Args:
        name: of the setting, for the error.
        value: as YAML has read it.
        field: of one of the steps.
        typed: the text of it, where it comes from the command line: text that looks like a number is text there.

    Raises:
        ConfigurationError: it is of another type.
    """
    kind, optional = kind_of(field)
    if value is None and optional:
        return None
    quoted = isinstance(value, str) and (typed or "").lstrip()[:1] in ("'", '"')
    if kind is str and typed is not None and not quoted:
        value = typed  # YAML has taken "no" for false, and what stands behind " #" for a comment
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        quotes = kind is str and isinstance(value, bool | int | float)
        remedy = "put quotes around it" if quotes else "correct it"
        raise ConfigurationError(
            f"{name} is {_shown(value)}, but takes {_KINDS[kind]}{' or null' if optional else ''}: {remedy}"
        )
    return value


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    text = OmegaConf.to_yaml(OmegaConf.create({"value": value})).removeprefix("value:").strip()
    return text if "\n" not in text else str(value)
