"""``fairseq-knn corpus``."""

import argparse
import re
from pathlib import Path

import pytest

from fairseq_knn.cli import corpus as command
from fairseq_knn.corpora import CORPORA, Corpus
from fairseq_knn.errors import UserError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-knn corpus")
    command.add_arguments(parser)
    return parser


def run(*arguments: str) -> int:
    return command.run(parser().parse_args(arguments))


def test_writes_and_summarises(
    medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find", lambda name: medical)
    for _ in range(2):  # the second time there is nothing to do, and the same to say
        assert run("medical", str(tmp_path / "out"), "--split", "category") == 0
        output = capsys.readouterr().out
        assert medical.licence in output
        assert "extracted on your machine" in output
        assert f"{tmp_path / 'out'}: medical, split by 'category'" in output
        assert "  train " in output
    assert "nothing to do" in output


def test_summary_of_many_languages(
    ui: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find", lambda name: ui)
    assert run("ui", str(tmp_path / "out")) == 0
    summary = capsys.readouterr().out.splitlines()[-24:]
    assert [line.split()[:2] for line in summary[::8]] == [[split, "aze-eng"] for split in ("train", "valid", "test")]
    for line in summary:
        assert re.fullmatch(r"  (train|valid|test ) (\w{3})-eng +[1-9]\d* sentences, \d+ words \2, \d+ words eng", line)


def test_errors_are_left_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus 'law'"):
        run("law", str(tmp_path))
    with pytest.raises(UserError, match="cannot be split by 'chapter'"):
        run("it", str(tmp_path), "--split", "chapter")
    assert list(tmp_path.iterdir()) == []


def test_help_names_everything() -> None:
    text = parser().format_help()
    for corpus in CORPORA:
        assert f"  {corpus.name}: " in text
        assert corpus.licence in text
        for rule in corpus.rules:
            assert rule.description in text
    assert "user-interface texts of three programs; 87 MB to download" in text
    assert "FAIRSEQ_KNN_CACHE" in text
