"""User-interface texts of programs made with Django, and of Django itself: compiled gettext files per application."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from zipfile import ZipFile

from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sources.gettext_files import mo_entries

# What Python puts a value for: %(name)s, %d; and %%, which is a percent sign.
_FORMAT = re.compile(r"%%|%(?:\((\w+)\))?\.?[drs]")


def read(wheel: ZipFile, locales: Mapping[str, str]) -> Iterator[Pair]:
    """Yield the pairs of every application, language by language.

    Args:
        wheel: the opened package.
        locales: what the package calls each language.

    Raises:
        UserError: polib, which reads gettext files, is not installed.
    """
    names = sorted(wheel.namelist())
    for language, locale in locales.items():
        catalogue = re.compile(rf"(.+)/locale/{re.escape(locale)}/LC_MESSAGES/(\w+)\.mo")
        for match in filter(None, map(catalogue.fullmatch, names)):
            for entry in mo_entries(wheel.read(match[0])):
                for source, target in _translations(entry):
                    yield Pair(f"{match[1]}/{match[2]}:{entry.msgid}", _braced(source), _braced(target), language)


def _translations(entry: Any) -> Iterator[tuple[str, str]]:
    """The singular and the plural: of many plural forms, the first and the last one."""
    if entry.msgid_plural:
        forms = entry.msgstr_plural
        yield forms[min(forms)], entry.msgid
        yield forms[max(forms)], entry.msgid_plural
    else:
        yield entry.msgstr, entry.msgid


def _braced(text: str) -> str:
    """Write placeholders as other programs do: ``{name}``."""
    return _FORMAT.sub(lambda match: "%" if match[0] == "%%" else f"{{{match[1] or ''}}}", text)
