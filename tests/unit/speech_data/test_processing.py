"""Processing texts once, and never twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.moses import Moses
from fairseq_knn.speech_data.processing import Processing, process
from fairseq_knn.speech_data.texts import extract, insert
from fairseq_knn.subwords import load_subwords

ReadTsv = Callable[[Path], list[dict[str, str]]]
COLUMNS = "id src_text extra tgt_text"


@pytest.fixture
def manifest(write_tsv: Callable[..., Path]) -> Path:
    return write_tsv("train.tsv", COLUMNS, ["a", "It's “low”.", "x", "Geht's?"], ["b", "lower", "y", ""])


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    path = tmp_path / "bpecodes"
    path.write_text("l o 3\nlo w</w> 2\n")
    return path


def both(codes: Path | None, normalize: bool = True) -> dict[str, Processing]:
    subwords = None if codes is None else load_subwords(codes)
    return {
        "src_text": Processing(Moses("en", normalize=normalize), subwords, frozenset({"low", "&@@", "."})),
        "tgt_text": Processing(Moses("de", normalize=normalize), subwords),
    }


def test_each_side_has_its_language(manifest: Path, tmp_path: Path, read_tsv: ReadTsv) -> None:
    output = tmp_path / "out.tsv"
    processed = process(manifest, output, both(None))
    assert [(row["src_text"], row["tgt_text"], row["extra"]) for row in read_tsv(output)] == [
        ("It &apos;s &quot; low . &quot;", "Geht &apos; s ?", "x"),
        ("lower", "", "y"),
    ]
    assert (processed.read, processed.written) == (2, 2)
    assert (processed.columns["src_text"].symbols, processed.columns["tgt_text"].blank) == (7, 1)
    # of "It", "&apos;s", "&quot;" (twice), "low", "." and "lower" the dictionary knows two
    assert processed.columns["src_text"].unknown == 5


def test_subwords_are_cut_after_tokenising(manifest: Path, tmp_path: Path, read_tsv: ReadTsv, codes: Path) -> None:
    output = tmp_path / "out.tsv"
    process(manifest, output, both(codes))
    row = read_tsv(output)[1]
    assert row["src_text"] == "lo@@ w@@ e@@ r"
    assert row["processed"] == "src_text:moses src_text:subwords tgt_text:moses tgt_text:subwords"


def test_the_same_command_again_writes_the_same(manifest: Path, tmp_path: Path, codes: Path) -> None:
    process(manifest, tmp_path / "first.tsv", both(codes))
    process(manifest, tmp_path / "second.tsv", both(codes))
    assert (tmp_path / "first.tsv").read_bytes() == (tmp_path / "second.tsv").read_bytes()


def test_what_is_processed_is_refused(manifest: Path, tmp_path: Path, codes: Path) -> None:
    output = tmp_path / "out.tsv"
    process(manifest, output, both(codes))
    renamed = output.rename(tmp_path / "train_other.tsv")
    with pytest.raises(ConfigurationError, match=r"src_text of .* has been through moses already"):
        process(renamed, output, both(codes))
    assert not output.exists()


def test_columns_and_steps_can_be_processed_one_after_the_other(
    manifest: Path, tmp_path: Path, codes: Path, read_tsv: ReadTsv
) -> None:
    paths = [manifest, *(tmp_path / f"{number}.tsv" for number in range(3))]
    steps = both(codes)
    tokenised, cut = Processing(Moses("en", normalize=True)), Processing(subwords=load_subwords(codes))
    for old, new, columns in zip(
        paths,
        paths[1:],
        ({"tgt_text": steps["tgt_text"]}, {"src_text": tokenised}, {"src_text": cut}),
        strict=False,
    ):
        process(old, new, columns)
    at_once = tmp_path / "at_once.tsv"
    process(manifest, at_once, steps)
    assert read_tsv(paths[-1]) == read_tsv(at_once)
    with pytest.raises(ConfigurationError, match=r"src_text of .* has been through subwords already"):
        process(paths[-1], tmp_path / "again.tsv", {"src_text": cut})


@pytest.mark.parametrize(
    ("text", "step"),
    [("It &apos;s low", "moses"), ("low @-@ er", "moses"), ("lo@@ w", "subwords"), ("▁low", "subwords")],
)
def test_texts_from_elsewhere_show_what_was_done_to_them(
    text: str, step: str, write_tsv: Callable[..., Path], tmp_path: Path, codes: Path
) -> None:
    manifest = write_tsv("train.tsv", "id src_text", ["a", text], ["b", "low"])
    with pytest.raises(ConfigurationError, match=f"looks as if it had been through {step} already"):
        process(manifest, tmp_path / "out.tsv", {"src_text": Processing(Moses("en", normalize=True))})
    cut = {"src_text": Processing(subwords=load_subwords(codes))}
    if step == "moses":  # what comes before subwords
        assert process(manifest, tmp_path / "out.tsv", cut).written == 2
    else:
        with pytest.raises(ConfigurationError, match="looks as if"):
            process(manifest, tmp_path / "out.tsv", cut)


def test_one_row_among_many_proves_nothing(write_tsv: Callable[..., Path], tmp_path: Path) -> None:
    rows = [[str(number), "low"] for number in range(200)]
    manifest = write_tsv("train.tsv", "id src_text", *rows, ["odd", "user@@ &amp;"])
    processing = {"src_text": Processing(Moses("en", normalize=False))}
    assert process(manifest, tmp_path / "out.tsv", processing).written == 201


def test_new_texts_are_not_taken_for_processed(manifest: Path, tmp_path: Path, codes: Path) -> None:
    processed = tmp_path / "processed.tsv"
    process(manifest, processed, both(codes))
    extract(manifest, tmp_path / "raw")
    texts = {"src_text": tmp_path / "raw.src_text"}
    insert(processed, tmp_path / "raw.ids", texts, tmp_path / "mixed.tsv")
    columns = both(codes)
    with pytest.raises(ConfigurationError, match=r"tgt_text of .* has been through"):
        process(tmp_path / "mixed.tsv", tmp_path / "again.tsv", columns)
    process(tmp_path / "mixed.tsv", tmp_path / "again.tsv", {"src_text": columns["src_text"]})
    assert (tmp_path / "again.tsv").read_bytes() == processed.read_bytes()


def test_nothing_to_do(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to do"):
        process(manifest, tmp_path / "out.tsv", {"src_text": Processing()})
