"""Code of the user's: fairseq imports its directory, and what it registers can be chosen by name."""

import re
from argparse import Namespace
from pathlib import Path

from fairseq_knn.errors import ConfigurationError

_IMPORTS = re.compile(r"^\s*(import|from)\s+fairseq_knn\b", re.MULTILINE)
_PACKAGE = Path(__file__).parents[1]


def user_dir(directory: str | None) -> str:
    """What fairseq gets as ``common.user_dir``.

    fairseq takes one directory, and processes that it starts import that one alone: the user's has to bring this
    package along.

    Raises:
        ConfigurationError: there is no such directory, or it does not import this package.
    """
    if directory is None:
        return str(_PACKAGE)
    path = Path(directory)
    if not path.is_dir():
        raise ConfigurationError(f"code.user_dir is {directory}, which is no directory: correct it")
    files = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(path.rglob("*.py"))]
    if not any(_IMPORTS.search(text) for text in files):
        raise ConfigurationError(
            f"nothing in {directory} imports fairseq_knn, whose task and hooks the training needs: put "
            f"`import fairseq_knn` at the head of {path / '__init__.py'}"
        )
    return directory


def load(directory: str | None) -> None:
    """Import fairseq, this package's part of it, and the user's directory.

    Raises:
        ConfigurationError: the directory cannot be imported, or see :func:`user_dir`.
    """
    path = user_dir(directory)
    from fairseq import utils

    import fairseq_knn  # noqa: F401  # registers itself when fairseq is loaded

    if directory is None:
        return
    try:
        utils.import_user_module(Namespace(user_dir=path))
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ConfigurationError(
            f"code.user_dir {directory} cannot be imported ({type(error).__name__}: {error}): correct it"
        ) from error
