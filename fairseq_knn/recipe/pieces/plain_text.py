"""Text, a sentence a line, which somebody else may have written."""

from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.digest import file_digest


def examined(path: Path) -> tuple[str, int]:
    """Checksum and number of lines.

    Raises:
        ConfigurationError: it cannot be read, is empty, is not UTF-8 or has carriage returns inside lines.
    """
    lines = 0
    try:
        with path.open("rb") as file:
            for line in file:
                lines += 1
                line.decode("utf-8")
                if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
                    raise ConfigurationError(
                        f"{path} has a carriage return inside line {lines}, which fairseq takes for the end of one, so "
                        "that what follows would not be beside its translation: replace it with a space"
                    )
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 (line {lines}: {error.reason}): convert it") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a text that you may read") from error
    if not lines:
        raise ConfigurationError(f"{path} is empty: name a text with sentences")
    return file_digest(path), lines
