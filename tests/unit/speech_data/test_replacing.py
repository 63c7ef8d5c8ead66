"""Generated texts in a manifest, found by the numbers of their rows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.generate_log import read_logs
from fairseq_knn.speech_data.replacing import is_reference, replace

ReadTsv = Callable[[Path], list[dict[str, str]]]
WriteTsv = Callable[..., Path]
TGT, SRC = "tgt_text", "src_text"


@pytest.fixture
def manifest(write_tsv: WriteTsv) -> Path:
    # two utterances of one translation, and columns as prep_covost --il orders them
    return write_tsv(
        "train.tsv",
        "id audio n_frames tgt_text src_text speaker",
        ["a", "x", "1", "Danke schön.", "Thank you.", "s"],
        ["b", "y", "2", "Danke  schön.", "Thanks!", "t"],
        ["c", "z", "3", 'Er sagt "ja".', "He says yes.", "u"],
    )


def log(path: Path, *lines: str) -> Path:
    noise = "2026-01-01 | INFO | fairseq_cli.generate | loading\n"
    path.write_text(noise + "".join(f"{line}\n" for line in lines) + "Generate train with beam=5: BLEU4 = 1.0\n")
    return path


def sample(number: int, reference: str | None, hypothesis: str) -> list[str]:
    """What fairseq-generate prints of one, here with subwords in the line that it has not detokenised."""
    lines = [] if reference is None else [f"T-{number}\t{reference}"]
    raw = f"H-{number}\t-0.5\traw@@ {hypothesis}"
    return [*lines, raw, f"D-{number}\t-0.5\t{hypothesis}", f"P-{number}\t-0.1 -0.2"]


@pytest.fixture
def translations(tmp_path: Path) -> Path:
    # in the order of generation, which is by length
    return log(
        tmp_path / "expert.log",
        *sample(2, "Er sagt &quot; ja &quot; .", "Er sagt: ja"),
        *sample(0, "Danke schön .", "Vielen Dank."),
        *sample(1, "Danke <<unk>> .", 'Danke "dir".'),
    )


def test_equal_references_keep_their_own_hypotheses(
    manifest: Path, translations: Path, tmp_path: Path, read_tsv: ReadTsv
) -> None:
    output = tmp_path / "out.tsv"
    replaced = replace(manifest, {TGT: [translations]}, output)
    rows = read_tsv(output)
    assert [row[TGT] for row in rows] == ["Vielen Dank.", 'Danke "dir".', "Er sagt: ja"]
    # found by name: neither the transcripts nor the speakers are touched
    assert [(row[SRC], row["speaker"]) for row in rows] == [
        ("Thank you.", "s"),
        ("Thanks!", "t"),
        ("He says yes.", "u"),
    ]
    counts = replaced.columns[TGT]
    assert (counts.samples, counts.matched, counts.checked, counts.raw, counts.cut) == (3, 3, 3, 0, 0)
    replace(manifest, {TGT: [translations]}, tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == output.read_bytes()


def test_transcripts_and_translations_at_once(
    manifest: Path, translations: Path, tmp_path: Path, read_tsv: ReadTsv
) -> None:
    asr = [
        log(tmp_path / "shard0.log", *sample(0, "Thank you.", "tank you")),
        log(tmp_path / "shard1.log", *sample(1, "Thanks!", "thanks"), *sample(2, 'Er sagt "ja".', "")),
    ]
    replaced = replace(manifest, {TGT: [translations], SRC: asr}, tmp_path / "out.tsv")
    assert [row[SRC] for row in read_tsv(tmp_path / "out.tsv")] == ["tank you", "thanks", ""]
    assert replaced.columns[SRC].blank == 1


def test_hypotheses_that_are_missing(manifest: Path, tmp_path: Path, read_tsv: ReadTsv) -> None:
    part = log(tmp_path / "part.log", *sample(1, "Danke schön.", "Danke."))
    with pytest.raises(ConfigurationError, match=r"no hypothesis for 2 of 3 rows of .* \(the first: a\)"):
        replace(manifest, {TGT: [part]}, tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()
    replaced = replace(manifest, {TGT: [part]}, tmp_path / "out.tsv", allow_missing=True)
    assert (replaced.read, replaced.written, replaced.columns[TGT].matched) == (3, 1, 1)
    # no row keeps its old text among the generated ones
    assert [(row["id"], row[TGT]) for row in read_tsv(tmp_path / "out.tsv")] == [("b", "Danke.")]


def test_logs_of_another_split(manifest: Path, tmp_path: Path) -> None:
    other = log(tmp_path / "dev.log", *sample(0, "Danke schön.", "x"), *sample(1, "Etwas anderes.", "y"))
    with pytest.raises(ConfigurationError, match=r"'Etwas anderes.', but row 1 of .*, b, has 'Danke  schön.'"):
        replace(manifest, {TGT: [other]}, tmp_path / "out.tsv", allow_missing=True)
    longer = log(tmp_path / "longer.log", *sample(3, None, "x"))
    with pytest.raises(ConfigurationError, match=r"has the sample 3, but .* only 3 rows"):
        replace(manifest, {TGT: [longer]}, tmp_path / "out.tsv", allow_missing=True)


def test_rows_are_found_by_id_if_another_manifest_was_generated(
    manifest: Path, write_tsv: WriteTsv, tmp_path: Path, read_tsv: ReadTsv
) -> None:
    asr = write_tsv(
        "asr.tsv",
        "id tgt_text",
        ["only_asr", "Hello."],
        ["c", "He says yes."],
        ["b", "Thanks!"],
        ["a", "Thank you."],
    )
    generated = log(
        tmp_path / "asr.log",
        *sample(0, "Hello.", "hallo"),
        *sample(1, "He says yes.", "he says yes"),
        *sample(2, "Thanks!", "thanks"),
        *sample(3, "Thank you.", "thank you"),
    )
    replaced = replace(manifest, {SRC: [generated]}, tmp_path / "out.tsv", generated_from=asr)
    assert [row[SRC] for row in read_tsv(tmp_path / "out.tsv")] == ["thank you", "thanks", "he says yes"]
    counts = replaced.columns[SRC]
    assert (counts.samples, counts.matched, counts.checked) == (4, 3, 4)


def test_h_lines_stand_in_and_are_counted(manifest: Path, tmp_path: Path, read_tsv: ReadTsv) -> None:
    lines = [line for number in range(3) for line in sample(number, None, "low") if not line.startswith("D-")]
    replaced = replace(manifest, {TGT: [log(tmp_path / "old.log", *lines)]}, tmp_path / "out.tsv")
    assert {row[TGT] for row in read_tsv(tmp_path / "out.tsv")} == {"raw@@ low"}
    counts = replaced.columns[TGT]
    assert (counts.raw, counts.checked, counts.cut) == (3, 0, 3)


def test_the_best_of_several_hypotheses_is_the_first(tmp_path: Path) -> None:
    lines = ["T-0\tx", "H-0\t-0.1\tb", "D-0\t-0.1\tbest", "P-0\t0", "H-0\t-0.9\tw", "D-0\t-0.9\tworst", "P-0\t0"]
    assert read_logs([log(tmp_path / "nbest.log", *lines)])[0].hypothesis == "best"


def test_two_runs_in_one_log(tmp_path: Path) -> None:
    twice = log(tmp_path / "twice.log", *sample(0, "x", "a"), *sample(1, "y", "b"), *sample(0, "z", "c"))
    with pytest.raises(ConfigurationError, match="the sample 0 of which there were lines before"):
        read_logs([twice])
    one = log(tmp_path / "one.log", *sample(0, "x", "a"))
    two = log(tmp_path / "two.log", *sample(0, "x", "a"))
    with pytest.raises(ConfigurationError, match=r"two.log .* \(in .*one.log\)"):
        read_logs([one, two])


def test_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no lines H-<number> or D-<number>"):
        read_logs([log(tmp_path / "quiet.log", "T-0\tx")])
    with pytest.raises(ConfigurationError, match="without a score"):
        read_logs([log(tmp_path / "cut.log", "D-0\tx")])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_logs([tmp_path / "none.log"])


@pytest.mark.parametrize(
    ("reference", "text", "same"),
    [
        ("Das ist gut .", "Das ist gut.", True),
        ("das ist gut", "Das  ist „gut“.", True),
        ("Das i@@ st gu@@ t .", "Das ist gut.", True),
        ("▁Das ▁ist ▁gut .", "Das ist gut.", True),
        ("It &apos;s A &amp; B", "It's A & B", True),
        ("Haupt @-@ Sache", "Haupt-Sache", True),
        ("5 km²", "5 km2", True),
        ("<<unk>> ist <<unk>> .", "Das ist gut.", True),
        ("<<unk>>", "irgendwas", True),
        ("<<unk>> war <<unk>> .", "Das ist gut.", False),
        ("gut <<unk>> gut", "gut", False),
        ("Das ist gut", "Das ist", False),
        ("...", "?", True),
        ("", "Das", False),
    ],
)
def test_references_are_compared_by_letters_and_digits(reference: str, text: str, same: bool) -> None:
    assert is_reference(reference, text) is same
