"""Paths that the operating system refuses to look at."""

from pathlib import Path

import pytest

from fairseq_knn.cli.main import main


def test_a_path_that_is_too_long_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = f"pairs.directory={tmp_path}/new"
    for setting in (f"pairs.file={300 * 'a'}", f"training.save_dir={300 * 'a'}"):
        step = "pairs" if setting.startswith("pairs") else "evaluation"
        assert main(["recipe", "test", step, setting, directory]) == 1
        assert "cannot be reached (File name too long): correct the path" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
