from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.text_processing import TwoSided, expert_side, read_config, source_side, target_side


def _config(path: Path, text: str) -> Path:
    (path / "c.yaml").write_text(text)
    return path / "c.yaml"


def test_sides_are_told_apart(tmp_path: Path) -> None:
    config = read_config(_config(tmp_path, "src_bpe_tokenizer: {bpe: characters}\npre_tokenizer: {tokenizer: space}\n"))
    source, target = source_side(config), target_side(config)
    assert source.divide("ab c") == "a b ▁ c"
    assert source.restore("a b ▁ c") == "ab c"
    assert target.divide("ab  c") == "ab c"
    both = TwoSided(source.subwords, target.subwords)
    assert both.encode("ab") == "a b"
    assert both.decode("a b") == "a b"


def test_expert_reads_as_its_codes_or_the_yaml_say(tmp_path: Path) -> None:
    config = read_config(_config(tmp_path, "src_bpe_tokenizer: {bpe: characters}\n"))
    assert expert_side(config, None, tmp_path / "none")("ab") == "a b"
    codes, vocabulary = tmp_path / "codes", tmp_path / "dict.txt"
    codes.write_text("#version: 0.2\na b</w>\n")
    vocabulary.write_text("ab 1\nc@@ 1\n")
    assert expert_side(config, str(codes), vocabulary)("ab cab") == "ab c@@ ab"


def test_files_beside_the_yaml_are_found(tmp_path: Path) -> None:
    config = read_config(_config(tmp_path, "src_bpe_tokenizer: {bpe: subword_nmt, bpe_codes: codes}\n"))
    (tmp_path / "codes").write_text("#version: 0.2\na b</w>\n")
    assert source_side(config).divide("ab") == "ab"


@pytest.mark.parametrize(
    ("text", "complaint"), [(None, "does not exist"), ("a: [", "is no YAML"), ("", "has no settings in it")]
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "c.yaml" if text is None else _config(tmp_path, text)
    with pytest.raises(ConfigurationError, match=complaint):
        read_config(path)
