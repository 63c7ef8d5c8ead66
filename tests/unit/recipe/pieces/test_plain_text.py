"""Text that somebody else has written."""

from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.plain_text import examined


def test_lines_are_those_that_fairseq_reads(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes("a\u2028b\r\nc\x85\n".encode())
    assert examined(text)[1] == 2 == len(text.read_text("utf-8").removesuffix("\n").split("\n"))
    text.write_bytes(b"a\nb\rc\n")
    with pytest.raises(ConfigurationError, match="carriage return inside line 2"):
        examined(text)
