"""Whether the settings of pairs go together, and what the text that is made depends on."""

import re
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.settings import Pairs

# Ends of file names, between a hyphen and a full stop.
_LANGUAGE = re.compile(r"[A-Za-z0-9_]+")


def pairs_directory(settings: Pairs) -> Path:
    """Where text, tokenizer and binarised data go."""
    return Path(settings.directory or f"recipes/{settings.source}-{settings.target}")


def check_pairs(settings: Pairs) -> None:
    """
    Raises:
        ConfigurationError: a setting is out of its range, or two are the same.
    """
    for name in ("source", "target"):
        language = getattr(settings, name)
        if not _LANGUAGE.fullmatch(language):
            raise ConfigurationError(
                f"pairs.{name} is {language!r}, but languages end the names of files: use letters, digits and _ alone"
            )
    if settings.source == settings.target:
        raise ConfigurationError(
            f"pairs.source and pairs.target are both {settings.source}: name two languages, so that their files differ"
        )
    if settings.source_column == settings.target_column:
        raise ConfigurationError(
            f"pairs.source_column and pairs.target_column are both {settings.source_column}: name two columns"
        )
    lowest = {"source_column": 1, "target_column": 1, "skip_rows": 0, "max_words": 1, "max_ratio": 1, "seed": 0}
    # A training run without validation or evaluation data ends in an error, after it has run.
    for name, least in {**lowest, "valid": 1, "test": 1}.items():
        if not (value := getattr(settings, name)) >= least:
            remedy = " (the first column is 1)" if name.endswith("column") else ""
            raise ConfigurationError(f"pairs.{name} is {value}, but has to be at least {least}{remedy}")


def identity(settings: Pairs, sha256: str) -> dict[str, Any]:
    """What the text depends on: settings, and the checksum of the file."""
    names = ("source", "target", "source_column", "target_column", "skip_rows", "max_words", "valid", "test", "seed")
    return {
        **{name: getattr(settings, name) for name in names},
        "max_ratio": float(settings.max_ratio),
        "sha256": sha256,
    }
