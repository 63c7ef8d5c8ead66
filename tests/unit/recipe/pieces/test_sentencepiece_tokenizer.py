"""A model of both sides and every line, made once."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.choice import make_tokenizer
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer
from fairseq_knn.recipe.settings import Tokenizer

SETTINGS = Tokenizer(vocab_size=150)
Texts = tuple[Path, Path]


def made(texts: Texts, path: Path, said: list[str] | None = None, **settings: Any) -> PieceTokenizer:
    say = print if said is None else said.append
    return make_tokenizer(replace(SETTINGS, **settings), {}, texts, path, say)


@pytest.fixture(scope="module")
def model(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "aaa-bbb.150.model"
    made(texts, path)
    return path


def test_both_sides_and_the_first_row_are_known(texts: Texts, model: Path) -> None:
    tokenizer = made(texts, model)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for character in "qøжÿé":
        assert character in "".join(tokenizer.pieces() or [])
        assert processor.unk_id() not in processor.encode(character)


def test_held_out_text_is_not_looked_at(texts: Texts, model: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert processor.unk_id() in processor.encode("ŵ")


def test_what_it_is_made_of(texts: Texts, model: Path) -> None:
    tokenizer = made(texts, model)
    assert tokenizer.name == "sentencepiece-150"
    assert tokenizer.bpe == {"_name": "sentencepiece", "sentencepiece_model": str(model)}
    assert tokenizer.files() == {"sentencepiece.bpe.model": model}
    pieces = tokenizer.pieces() or []
    assert len(pieces) == len(set(pieces)) == 147
    assert not set(pieces) & {"<s>", "</s>", "<unk>", "<pad>"}
    vocabulary = [line.split("\t")[0] for line in model.with_suffix(".vocab").read_text("utf-8").splitlines()]
    assert vocabulary == ["<unk>", "<s>", "</s>", *pieces]


def test_pieces_become_the_sentence_again_in_another_process_too(texts: Texts, model: Path) -> None:
    tokenizer = made(texts, model)
    for line in texts[0].read_text("utf-8").splitlines()[:20]:
        pieces = tokenizer.encode(line)
        assert set(pieces.split()) <= set(tokenizer.pieces() or [])
        assert tokenizer.decode(pieces) == line
        assert pickle.loads(pickle.dumps(tokenizer)).encode(line) == pieces


def test_equal_text_gives_an_equal_model(texts: Texts, model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.model"
    made(texts, again)
    assert again.read_bytes() == model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "again.model", "again.vocab"]


def test_long_and_odd_lines_are_learned_from(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a b " * 2000 + "ω\n\N{LOWER FIVE EIGHTHS BLOCK} ψ\n" + "ab ba\n" * 20, encoding="utf-8")
    tokenizer = made((text, text), tmp_path / "m.model", vocab_size=10)
    assert {"ω", "ψ"} <= set("".join(tokenizer.pieces() or []))


def test_model_that_is_there_is_reused_and_told_from_others(texts: Texts, model: Path, tmp_path: Path) -> None:
    before, said = model.read_bytes(), []
    made(texts, model, said)
    assert said == [f"{model} is there already: reused"]
    said.clear()
    made((texts[1], texts[0]), model, said)
    assert said == [f"{model} is there already: reused, though it was trained on other text"]
    with pytest.raises(ConfigurationError, match=r"has 150 pieces, and tokenizer.vocab_size is 200: set .*=150"):
        made(texts, model, vocab_size=200)
    with pytest.raises(ConfigurationError, match=r"trained with tokenizer\.model_type=unigram, and bpe is asked for"):
        made(texts, model, model_type="bpe")
    assert model.read_bytes() == before
    # of somebody else: nothing is known of its training
    (tmp_path / "own.model").write_bytes(before)
    assert made(texts, tmp_path / "own.model", model_type="bpe").name == "sentencepiece-150"


def test_byte_pairs(texts: Texts, tmp_path: Path) -> None:
    assert made(texts, tmp_path / "m.model", model_type="bpe").name == "sentencepiece-150"


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_largest_vocabulary_is_named_and_works(model_type: str, texts: Texts, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gives \d+ pieces at most: set tokenizer.vocab_size=\d+") as raised:
        made(texts, tmp_path / "m.model", vocab_size=50_000, model_type=model_type)
    assert list(tmp_path.iterdir()) == []
    largest = int(str(raised.value).rsplit("=", 1)[1].split()[0])
    assert made(texts, tmp_path / "m.model", vocab_size=largest, model_type=model_type).name.endswith(f"-{largest}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 20}, r"so many characters that \d+ pieces are the least"),
        ({"vocab_size": 2}, "tokenizer.vocab_size is 2: set it to some thousands"),
        ({"model_type": "word"}, "tokenizer.model_type is 'word': choose unigram or bpe"),
        ({"character_coverage": 5.0}, "tokenizer.character_coverage is 5.0"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], message: str, texts: Texts, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(texts, tmp_path / "m.model", **change)


def test_other_files(texts: Texts, tmp_path: Path) -> None:
    (tmp_path / "m.model").write_text("no model")
    with pytest.raises(ConfigurationError, match=r"m\.model cannot be read as a sentencepiece model"):
        made(texts, tmp_path / "m.model")
    with pytest.raises(ConfigurationError, match="absent cannot be read"):
        made((tmp_path / "absent", texts[1]), tmp_path / "n.model")
    with pytest.raises(ConfigurationError, match="has no setting 'dropout': it has vocab_size"):
        make_tokenizer(SETTINGS, {"dropout": 1}, texts, tmp_path / "n.model", print)
