"""Reading and writing manifests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.manifest import Manifest, write_manifest

COLUMNS = "id audio n_frames tgt_text speaker"
NASTY = 'He said "no\\", then ""; \'x\' , \u2028 \x0b \x1c \u0085 #'


def rewritten(path: Path, output: Path) -> Path:
    manifest = Manifest(path)
    write_manifest(output, manifest.columns, manifest.rows(), (path,))
    return output


def test_what_is_read_is_written_again_byte_by_byte(write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    # unknown columns, their order, quotes, backslashes, what Python alone takes for an end of line, empty fields
    path = write_tsv(
        "train.tsv", "speaker id extra tgt_text audio", ["s", "a", "", NASTY, "x"], ["", "b", '"', '"', "y"]
    )
    assert rewritten(path, tmp_path / "out.tsv").read_bytes() == path.read_bytes()


def test_stock_reads_the_same(write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDatasetCreator

    path = write_tsv("train.tsv", COLUMNS, ["a", "x", "9", NASTY, "s"], ["b", "y", "8", "\\", ""])
    stock = SpeechToTextDatasetCreator._load_samples_from_tsv(str(tmp_path), "train")
    assert list(Manifest(path).rows()) == stock


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "first line is missing"),
        ("id\tid\n", "names a column twice"),
        ("audio\ttgt_text\nx\ty\n", "has no column id, only audio, tgt_text"),
        ("id\ttgt_text\n", "a header and no rows"),
        ("\ufeffid\ttgt_text\na\tx\n", "begins with a byte order mark"),
        ("id\ttgt_text\na\tx\ty\n", "line 2 of .* has 3 fields, but its header 2"),
        ("id\ttgt_text\na\tx\nb\n", "line 3 of .* has 1 fields, but its header 2"),
        ("id\ttgt_text\na\tx\nb\tx\na\ty\n", "the id a twice, the second time in line 4"),
        ("id\ttgt_text\na\t" + "x" * 200_000 + "\n", "field larger than"),
    ],
)
def test_what_is_no_manifest(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        list(Manifest(path).rows())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Manifest(tmp_path / "none.tsv")
    latin = tmp_path / "latin.tsv"
    latin.write_bytes("id\ttgt_text\na\tschön\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="is no manifest"):
        list(Manifest(latin).rows())


def test_a_column_that_is_needed(write_tsv: Callable[..., Path]) -> None:
    path = write_tsv("train.tsv", COLUMNS, ["a", "x", "9", "t", "s"])
    with pytest.raises(ConfigurationError, match="no column src_text, only id, audio"):
        Manifest(path, "src_text")


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\rb"])
def test_fields_hold_no_tab_and_no_end_of_line(text: str, tmp_path: Path) -> None:
    output = tmp_path / "out.tsv"
    with pytest.raises(ConfigurationError, match="tgt_text of a would be"):
        write_manifest(output, ("id", "tgt_text"), [{"id": "a", "tgt_text": text}], ())
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_not_replaced(write_tsv: Callable[..., Path]) -> None:
    path = write_tsv("train.tsv", COLUMNS, ["a", "x", "9", "t", "s"])
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="name another file as output"):
        rewritten(path, path.parent / "." / path.name)
    assert path.read_bytes() == before
