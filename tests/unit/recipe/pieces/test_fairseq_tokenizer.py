"""What fairseq knows as a bpe, with its own settings."""

from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.choice import make_tokenizer
from fairseq_knn.recipe.settings import Tokenizer


def test_characters_need_no_settings() -> None:
    tokenizer = make_tokenizer(Tokenizer("characters"), {}, (), Path("unused"), print)
    assert (tokenizer.name, tokenizer.bpe) == ("characters", {"_name": "characters"})
    assert tokenizer.encode("ab é") == "a b ▁ é"
    assert tokenizer.decode("a b ▁ é") == "ab é"
    assert (tokenizer.pieces(), tokenizer.files()) == (None, {})


def test_codes_of_another_program(tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text("#version: 0.2\na b</w>\n")
    tokenizer = make_tokenizer(Tokenizer("subword_nmt"), {"bpe_codes": str(codes)}, (), Path("unused"), print)
    assert tokenizer.encode("ab ac") == "ab a@@ c"
    assert tokenizer.files() == {"bpecodes": codes}
    assert tokenizer.bpe == {"_name": "subword_nmt", "bpe_codes": str(codes), "bpe_separator": "@@"}
    before = tokenizer.digest()
    codes.write_text("#version: 0.2\na c</w>\n")
    assert tokenizer.digest() != before


@pytest.mark.parametrize(
    ("settings", "extra", "message"),
    [
        (Tokenizer("letters"), {}, "tokenizer=letters is no bpe .*: choose one of .*characters.*sentencepiece"),
        (Tokenizer("characters"), {"size": 3}, "tokenizer=characters has no setting 'size': it has none of its own"),
        (Tokenizer("subword_nmt"), {"codes": "a"}, "no setting 'codes': it has bpe_codes, bpe_separator"),
        (Tokenizer("subword_nmt"), {}, "tokenizer=subword_nmt needs tokenizer.bpe_codes: give it"),
        (Tokenizer("subword_nmt"), {"bpe_codes": "absent"}, "tokenizer=subword_nmt cannot be used .*absent"),
        (Tokenizer("characters", vocab_size=9), {}, "tokenizer.vocab_size is a setting of sentencepiece"),
    ],
)
def test_settings_that_do_not_go_together(settings: Tokenizer, extra: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_tokenizer(settings, extra, (), Path("unused"), print)
