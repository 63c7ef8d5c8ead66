"""``fairseq-knn st-data``: from what the prep scripts write to what training reads."""

from pathlib import Path

import pytest
import yaml

from fairseq_knn.cli.main import main
from fairseq_knn.cli.st_data import COMMANDS

CODES = "l o 9\nlo w</w> 7\nlo w 3\ne r</w> 2\nlow er</w> 1\n"
DICTIONARY = "low 3\nlower 2\n. 1\nIt 1\n&apos;s 1\n"


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with manifests as of MuST-C and an expert."""
    monkeypatch.chdir(tmp_path)
    header = "id\taudio\tn_frames\ttgt_text\tspeaker\n"
    (tmp_path / "train_st.tsv").write_text(header + "a\tz:1\t10\tEs ist lower.\ts\nb\tz:2\t20\tlow\ts\n")
    (tmp_path / "train_asr.tsv").write_text(header + "b\tz:2\t20\tlow\ts\na\tz:1\t10\tIt's low.\ts\nc\tz:3\t30\tx\ts\n")
    (tmp_path / "bpecodes").write_text(CODES)
    (tmp_path / "dict.de.txt").write_text(DICTIONARY)
    return tmp_path


def run(line: str) -> int:
    return main(["st-data", *line.split()])


def texts(name: str) -> list[tuple[str, ...]]:
    header, *lines = Path(name).read_text().splitlines()
    columns = header.split("\t")
    return [tuple(line.split("\t")[columns.index(column)] for column in ("src_text", "tgt_text")) for line in lines]


def test_every_command_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("merge train_st.tsv train_asr.tsv --output train.tsv --allow-missing") == 0
    assert texts("train.tsv") == [("It's low.", "Es ist lower."), ("low", "low")]
    said = capsys.readouterr().out
    assert "read: 2 rows of train_st.tsv, 3 of train_asr.tsv" in said
    assert "matched: 2 of 2 (100.00 %), 2 of 3 (66.67 %)" in said
    assert "left out: 0 that only train_st.tsv has, 1 that only train_asr.tsv has" in said
    assert "written: 2 rows to train.tsv" in said

    assert run("extract train.tsv --output train --columns src_text") == 0
    assert "written: 2 lines to each of train.ids, train.src_text" in capsys.readouterr().out
    Path("train.lower").write_text(Path("train.src_text").read_text().lower())
    assert run("insert train.tsv --ids train.ids --src-text train.lower --output train_lower.tsv") == 0
    assert texts("train_lower.tsv") == [("it's low.", "Es ist lower."), ("low", "low")]
    assert "matched: 2 of 2 (100.00 %), 2 of 2 (100.00 %)" in capsys.readouterr().out

    command = "process train.tsv --output train_bpe.tsv --source-lang en --target-lang de --bpe-codes bpecodes"
    assert run(f"{command} --expert-vocab-src dict.de.txt --expert-vocab-tgt dict.de.txt") == 0
    assert texts("train_bpe.tsv") == [
        ("I@@ t &@@ a@@ p@@ o@@ s@@ ;@@ s low .", "E@@ s i@@ s@@ t lower ."),
        ("low", "low"),
    ]
    said = capsys.readouterr().out
    assert "punctuation: normalised" in said
    assert "src_text: 12 symbols, not in the dictionary: 9 of 12 (75.00 %)" in said

    assert run("config . --expert-vocab-tgt dict.de.txt --name config.yaml --audio-root audio") == 0
    assert yaml.safe_load(Path("config.yaml").read_text())["audio_root"] == "audio"
    assert "manifests that go with it hold symbols of the dictionary" in capsys.readouterr().out

    Path("expert.log").write_text("T-0\tEs ist lower .\nH-0\t-1\tEs lower\nD-0\t-1\tEs lower.\n")
    replace = "replace -d train.tsv -o expert.log --output train_seqkd.tsv"
    assert run(replace) == 1
    assert "no hypothesis for 1 of 2 rows" in capsys.readouterr().err
    assert run(f"{replace} --allow-missing") == 0
    assert texts("train_seqkd.tsv") == [("It's low.", "Es lower.")]
    said = capsys.readouterr().out
    assert "tgt_text: 1 samples, matched 1 of 2 (50.00 %)" in said
    assert "left out: 1 rows without a hypothesis" in said


def test_only_training_splits_are_normalised_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    content = "id\tsrc_text\na\t“low”\n"
    command = "--output out.tsv --source-lang en --columns src_text"
    for name, option, normalised in (
        ("train.tsv", "", True),
        ("dev.tsv", "", False),
        ("dev.tsv", "--normalize", True),
        ("train.tsv", "--no-normalize", False),
    ):
        Path(name).write_text(content)
        assert run(f"process {name} {command} {option}") == 0
        text = "&quot; low &quot;" if normalised else "“ low ”"
        assert text in Path("out.tsv").read_text(), (name, option)
        assert f"punctuation: {'normalised' if normalised else 'left as it is'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("merge train_st.tsv train_asr.tsv --output out.tsv", "1 of 3 ids of train_asr.tsv are not in train_st.tsv"),
        ("merge none.tsv train_asr.tsv --output out.tsv", "none.tsv cannot be read"),
        ("merge train_st.tsv train_st.tsv --output no/out.tsv", "there is no directory no"),
        ("extract train_st.tsv --output train", "has no column src_text"),
        ("insert train_st.tsv --ids ids --output out.tsv", "give --src-text, --tgt-text or both"),
        ("process train_st.tsv --output out.tsv --columns tgt_text", "add --target-lang"),
        (
            "process train_st.tsv --output out.tsv --columns tgt_text --tokenizer none --target-lang de",
            "--target-lang belong to Moses's rules",
        ),
        ("process train_st.tsv --output out.tsv --columns tgt_text --tokenizer none", "nothing to do"),
        (
            "process train_st.tsv --output out.tsv --columns tgt_text --target-lang de --bpe-codes train_st.tsv",
            "is none of what subwords are read from",
        ),
        ("config . --expert-vocab-tgt dict.de.txt --tokenizer moses --source-lang en", "give both languages"),
        ("config . --expert-vocab-tgt dict.de.txt --target-lang de", "give both languages"),
        ("config none --expert-vocab-tgt dict.de.txt", "there is no directory"),
        ("replace -d train_st.tsv --output out.tsv", "give --translations, --transcripts or both"),
    ],
)
def test_mistakes_end_in_a_sentence(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not Path("out.tsv").exists()


@pytest.mark.parametrize("name", [command.NAME for command in COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(f"{name} --help")
    assert f"fairseq-knn st-data {name}" in capsys.readouterr().out


def test_languages_without_abbreviations_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("process train_st.tsv --output out.tsv --columns tgt_text --target-lang xx") == 0
    assert "no abbreviations of xx are known" in capsys.readouterr().out
