"""An invisible character at the beginning of a text file, which would become part of its first word."""

from pathlib import Path

from fairseq_knn.errors import ConfigurationError

BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


def refuse_byte_order_mark(path: Path, beginning: str) -> None:
    """
    Args:
        path: of the file, for the message.
        beginning: of its text.

    Raises:
        ConfigurationError: the text begins with a byte order mark.
    """
    if beginning.startswith(BYTE_ORDER_MARK):
        raise ConfigurationError(
            f"{path} begins with a byte order mark, an invisible character that the name of its first column would "
            "have in front: save it as UTF-8 without a byte order mark (sed -i '1s/^\\xEF\\xBB\\xBF//' FILE)"
        )
