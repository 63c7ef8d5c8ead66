"""Gettext files, read with polib, which is an optional dependency."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from fairseq_knn.errors import UserError


def po_entries(content: bytes) -> Iterable[Any]:
    """Entries of a ``.po`` file in UTF-8, as polib gives them.

    Raises:
        UserError: polib is not installed.
    """
    entries: Iterable[Any] = _polib().pofile(content.decode("utf-8"))
    return entries


def mo_entries(content: bytes) -> Iterable[Any]:
    """Entries of a compiled (``.mo``) file: no fuzzy ones and none without a translation.

    Raises:
        UserError: polib is not installed.
    """
    entries: Iterable[Any] = _polib().mofile(content)
    return entries


def _polib() -> ModuleType:
    try:
        import polib
    except ImportError as error:
        raise UserError(
            "this corpus is read with polib, which is not installed: pip install polib "
            "(or fairseq-knn with its extra: fairseq-knn[demo])"
        ) from error
    module: ModuleType = polib
    return module
