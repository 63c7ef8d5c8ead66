import re
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.text_manifest import check_filled, read_columns, require


def test_columns_are_told_by_name_and_texts_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text('tgt_text\tid\n"ein Wort\ta\n\n Satz\u2028mit \x85 Zeichen \tb\n', encoding="utf-8")
    assert read_columns(path, ["id"]) == {"tgt_text": ['"ein Wort', " Satz\u2028mit \x85 Zeichen "], "id": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no lines but the names of its columns"),
        (b"id\ttgt_text\n", "has no lines but the names of its columns"),
        (b"id\tsrc_text\n1\ta\n", "has no column tgt_text (its first line names id, src_text)"),
        (b"id\ttgt_text\n1\ta\n2\tb\tc\n", "line 3 of train.tsv has 3 columns, but the first line names 2"),
        (b"id\ttgt_text\n1\n", "line 2 of train.tsv has 1 columns"),
        (b"id\ttgt_text\n1\t\xff\n", "is no UTF-8 text"),
        (b"\xef\xbb\xbfid\ttgt_text\n1\ta\n", "train.tsv begins with a byte order mark"),
        (b"id\ttgt_text\n1\ta\n2\tb\n1\ta\n", "train.tsv has the id 1 twice"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "train.tsv"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(complaint).replace("train", ".*train")):
        read_columns(path, ["id", "tgt_text"])


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.tsv cannot be read"):
        read_columns(tmp_path / "train.tsv", [])


def test_blanks_are_counted_and_named() -> None:
    columns = {"id": list("abcdefgh"), "src_text": ["x", " ", "", "", "", "", "", "y"]}
    require(columns, ["src_text"], Path("train.tsv"))
    with pytest.raises(
        ConfigurationError, match=r"blank in 6 of 8 lines \(ids b, c, d, e, f, \.\.\.\), but it is read"
    ):
        check_filled(columns, "src_text", "train.tsv", "it is read")
    check_filled({"id": ["a"], "src_text": ["x"]}, "src_text", "train.tsv", "it is read")
