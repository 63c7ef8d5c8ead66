"""Texts out of a manifest and back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.texts import extract, insert

ReadTsv = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def manifest(write_tsv: Callable[..., Path]) -> Path:
    # as prep_covost --il orders them, which scripts that go by position take for something else
    return write_tsv(
        "train.tsv",
        "id audio n_frames tgt_text src_text speaker",
        ["b", "x", "2", 'zwei "', "two\u2028\u0085", "s"],
        ["a", "y", "1", "zwei", "one", "t"],
        ["c", "z", "3", "", "three", "u"],
    )


def test_texts_are_extracted_line_by_line(manifest: Path, tmp_path: Path) -> None:
    extracted = extract(manifest, tmp_path / "train")
    assert (tmp_path / "train.ids").read_text() == "b\na\nc\n"
    assert (tmp_path / "train.tgt_text").read_text() == 'zwei "\nzwei\n\n'
    assert (tmp_path / "train.src_text").read_bytes().decode() == "two\u2028\u0085\none\nthree\n"
    assert extracted.rows == 3
    assert [blank for blank in extracted.blank.values() if blank] == [1]


def test_texts_come_back_to_their_ids(manifest: Path, tmp_path: Path, read_tsv: ReadTsv) -> None:
    extract(manifest, tmp_path / "train")
    # in another order, as a program may well write them
    (tmp_path / "ids").write_text("c\nb\na\n")
    (tmp_path / "tok.en").write_text("THREE\nTWO\u2028\nONE\n")
    output = tmp_path / "train_processed.tsv"
    inserted = insert(manifest, tmp_path / "ids", {"src_text": tmp_path / "tok.en"}, output)
    assert (inserted.ids.matched, inserted.written) == (3, 3)
    rows = read_tsv(output)
    assert [(row["id"], row["src_text"], row["tgt_text"], row["speaker"]) for row in rows] == [
        ("b", "TWO\u2028", 'zwei "', "s"),
        ("a", "ONE", "zwei", "t"),
        ("c", "THREE", "", "u"),
    ]
    # dev and test as well as train: no column of numbers before the id
    assert list(rows[0]) == ["id", "audio", "n_frames", "tgt_text", "src_text", "speaker"]


def test_there_and_back_is_the_same_file(manifest: Path, tmp_path: Path) -> None:
    for run in ("first", "second"):
        extract(manifest, tmp_path / "train")
        texts = {column: tmp_path / f"train.{column}" for column in ("src_text", "tgt_text")}
        inserted = insert(manifest, tmp_path / "train.ids", texts, tmp_path / f"{run}.tsv")
        assert inserted.blank == {"src_text": 0, "tgt_text": 1}
        assert (tmp_path / f"{run}.tsv").read_bytes() == manifest.read_bytes()


def test_line_counts_are_compared(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "train")
    (tmp_path / "tok").write_text("one\ntwo\n")
    with pytest.raises(ConfigurationError, match=r"tok has 2 lines, but .*train.ids 3"):
        insert(manifest, tmp_path / "train.ids", {"src_text": tmp_path / "tok"}, tmp_path / "out.tsv")


def test_rows_without_a_line(manifest: Path, tmp_path: Path, read_tsv: ReadTsv) -> None:
    (tmp_path / "ids").write_text("a\nx\n")
    (tmp_path / "tok").write_text("ONE\nnobody\n")
    arguments = (manifest, tmp_path / "ids", {"src_text": tmp_path / "tok"}, tmp_path / "out.tsv")
    with pytest.raises(ConfigurationError, match=r"2 of 3 ids of .*first: b\) and 1 of 2 ids of .*first: x\)"):
        insert(*arguments)
    inserted = insert(*arguments, allow_missing=True)
    assert (inserted.ids.left_only, inserted.ids.right_only, inserted.written) == (2, 1, 1)
    assert [row["src_text"] for row in read_tsv(tmp_path / "out.tsv")] == ["ONE"]


def test_ids_that_come_twice(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("a\na\n")
    with pytest.raises(ConfigurationError, match="the id a twice"):
        insert(manifest, tmp_path / "ids", {"src_text": tmp_path / "ids"}, tmp_path / "out.tsv")


def test_a_column_can_be_new(write_tsv: Callable[..., Path], tmp_path: Path, read_tsv: ReadTsv) -> None:
    manifest = write_tsv("st.tsv", "id tgt_text", ["a", "eins"])
    (tmp_path / "ids").write_text("a\n")
    (tmp_path / "text").write_text("one\r\n")
    insert(manifest, tmp_path / "ids", {"src_text": tmp_path / "text"}, tmp_path / "out.tsv")
    assert read_tsv(tmp_path / "out.tsv") == [{"id": "a", "tgt_text": "eins", "src_text": "one"}]


def test_a_line_with_a_tab(manifest: Path, tmp_path: Path) -> None:
    extract(manifest, tmp_path / "train")
    (tmp_path / "tok").write_text("a\nb\tc\nd\n")
    with pytest.raises(ConfigurationError, match="src_text of a would be"):
        insert(manifest, tmp_path / "train.ids", {"src_text": tmp_path / "tok"}, tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()
