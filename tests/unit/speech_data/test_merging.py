"""Translations and transcripts from two manifests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.merging import merge

COLUMNS = "id audio n_frames tgt_text speaker"


@pytest.fixture
def st(write_tsv: Callable[..., Path]) -> Path:
    return write_tsv(
        "st.tsv",
        COLUMNS,
        ["b", "z:2", "20", "zwei", "s"],
        ["a", "z:1", "10", "eins", "s"],
        ["c", "z:3", "30", "drei", ""],
    )


def test_rows_are_joined_on_their_ids(
    st: Path, write_tsv: Callable[..., Path], read_tsv: Callable[[Path], list[dict[str, str]]], tmp_path: Path
) -> None:
    # another order of rows and of columns
    asr = write_tsv(
        "asr.tsv",
        "tgt_text speaker id n_frames audio",
        ["one", "other", "a", "10", "z:1"],
        ["three", "", "c", "30", "z:3"],
        ["two", "", "b", "20", "z:2"],
    )
    output = tmp_path / "train.tsv"
    merged = merge(st, asr, output)
    assert (merged.ids.matched, merged.written, merged.blank) == (3, 3, 0)
    rows = read_tsv(output)
    assert [(row["id"], row["tgt_text"], row["src_text"], row["speaker"]) for row in rows] == [
        ("b", "zwei", "two", "s"),
        ("a", "eins", "one", "s"),
        ("c", "drei", "three", ""),
    ]
    assert list(rows[0]) == [*COLUMNS.split(), "src_text"]
    again = tmp_path / "again.tsv"
    merge(st, asr, again)
    assert again.read_bytes() == output.read_bytes()


def test_ids_of_one_side_alone_are_an_error_or_left_out(
    st: Path, write_tsv: Callable[..., Path], read_tsv: Callable[[Path], list[dict[str, str]]], tmp_path: Path
) -> None:
    # the original script put transcripts beside translations by their position after filtering
    asr = write_tsv("asr.tsv", COLUMNS, ["x", "z:0", "5", "zero", ""], ["c", "z:3", "30", "three", ""])
    output = tmp_path / "train.tsv"
    with pytest.raises(ConfigurationError, match=r"2 of 3 ids of .*st.tsv .*first: b\) and 1 of 2 ids of .*first: x\)"):
        merge(st, asr, output)
    assert not output.exists()
    merged = merge(st, asr, output, allow_missing=True)
    assert (merged.ids.left_only, merged.ids.right_only, merged.written) == (2, 1, 1)
    assert [(row["id"], row["src_text"]) for row in read_tsv(output)] == [("c", "three")]


def test_no_id_in_common(st: Path, write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    asr = write_tsv("asr.tsv", COLUMNS, ["x", "z:0", "5", "zero", ""])
    with pytest.raises(ConfigurationError, match="no id in common"):
        merge(st, asr, tmp_path / "train.tsv", allow_missing=True)


@pytest.mark.parametrize(("column", "audio", "frames"), [("audio", "other", "20"), ("n_frames", "z:2", "21")])
def test_one_id_for_two_utterances(
    column: str, audio: str, frames: str, st: Path, write_tsv: Callable[..., Path], tmp_path: Path
) -> None:
    asr = write_tsv("asr.tsv", COLUMNS, ["b", audio, frames, "two", ""])
    with pytest.raises(ConfigurationError, match=f"{column} of b is"):
        merge(st, asr, tmp_path / "train.tsv", allow_missing=True)


def test_ids_that_come_twice(st: Path, write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    asr = write_tsv("asr.tsv", COLUMNS, ["b", "z:2", "20", "two", ""], ["b", "z:2", "20", "too", ""])
    with pytest.raises(ConfigurationError, match="the id b twice"):
        merge(st, asr, tmp_path / "train.tsv", allow_missing=True)


def test_transcripts_that_are_there_are_kept(st: Path, write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    with_source = write_tsv("il.tsv", f"{COLUMNS} src_text", ["b", "z:2", "20", "zwei", "", "two"])
    with pytest.raises(ConfigurationError, match="has a column src_text already"):
        merge(with_source, st, tmp_path / "train.tsv", allow_missing=True)
