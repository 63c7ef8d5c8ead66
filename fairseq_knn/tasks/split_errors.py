"""What is wrong with a split, told in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from fairseq_knn.errors import ConfigurationError


@contextmanager
def split_errors(split: str, check: str) -> Iterator[None]:
    """Around loading it with stock.

    Args:
        split: its name.
        check: what the user is to look at.

    Raises:
        ConfigurationError: it does not exist, or has no sentences.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigurationError(f"{error}: {check}") from error
    except ValueError as error:
        if "mmap an empty file" not in str(error):
            raise
        raise ConfigurationError(f"the split {split!r} has no sentences: {check}") from error
