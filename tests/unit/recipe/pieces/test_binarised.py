"""What stock fairseq reads is the text in the tokenizer's pieces."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fairseq.binarizer import FileBinarizer
from fairseq.data import Dictionary, data_utils

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces import binarised
from fairseq_knn.recipe.pieces.binarised import binarise
from fairseq_knn.recipe.pieces.choice import make_tokenizer
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer
from fairseq_knn.recipe.settings import Tokenizer

Texts = tuple[Path, Path]
Splits = dict[str, Texts]
LANGUAGES = ("aaa", "bbb")


@pytest.fixture(scope="module")
def tokenizer(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> PieceTokenizer:
    return make_tokenizer(Tokenizer(vocab_size=150), {}, texts, tmp_path_factory.mktemp("t") / "m.model", print)


@pytest.fixture
def splits(texts: Texts, tmp_path: Path) -> Splits:
    held_out = []
    for text, more in zip(texts, ("ŵ", ""), strict=True):
        held_out.append(tmp_path / text.name.replace("train", "valid"))
        lines = text.read_text("utf-8").splitlines()[:10]
        held_out[-1].write_text("".join(f"{line} {more}\n" for line in lines), encoding="utf-8")
    return {"train": texts, "valid": (held_out[0], held_out[1])}


def sentences(data: Path, split: str, language: str) -> list[str]:
    dictionary = Dictionary.load(str(data / f"dict.{language}.txt"))
    dataset = data_utils.load_indexed_dataset(str(data / f"{split}.aaa-bbb.{language}"), dictionary, "mmap")
    assert all(tokens[-1] == dictionary.eos() for tokens in dataset)
    return [dictionary.string(tokens) for tokens in dataset]


def test_data_is_the_text_in_pieces(splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path) -> None:
    said: list[str] = []
    data = binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 2, said.append)
    assert data == tmp_path / "binary" / "sentencepiece-150"
    for language, text in zip(LANGUAGES, splits["train"], strict=True):
        lines = text.read_text("utf-8").splitlines()
        assert [tokenizer.decode(pieces) for pieces in sentences(data, "train", language)] == lines
    dictionaries = [Dictionary.load(str(data / f"dict.{language}.txt")) for language in LANGUAGES]
    assert dictionaries[0].symbols == dictionaries[1].symbols
    assert dictionaries[0].symbols[4:] == tokenizer.pieces()
    assert len(dictionaries[0]) == 150 - 3 + 4
    assert sum("<unk>" in line for line in sentences(data, "valid", "aaa")) == 10
    assert any("train.aaa-bbb.aaa: 201 sentences" in line and "0 of them (0.00 %)" in line for line in said)
    assert any("valid.aaa-bbb.aaa" in line and "10 of them" in line and "WARNING" in line for line in said)


def test_vocabulary_of_characters_is_that_of_the_training_text(splits: Splits, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(Tokenizer("characters"), {}, (), Path("unused"), print)
    data = binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    text = "".join(path.read_text("utf-8") for path in splits["train"])
    dictionary = Dictionary.load(str(data / "dict.bbb.txt"))
    assert set(dictionary.symbols[4:]) == set(text.replace(" ", "▁")) - {"\n"}
    assert dictionary.count[4:] == sorted(dictionary.count[4:], reverse=True)
    first = splits["train"][1].read_text("utf-8").splitlines()[0]
    assert tokenizer.decode(sentences(data, "train", "bbb")[0]) == first


def test_bytes_do_not_depend_on_workers(
    splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binarised, "_SMALL", 1)
    written = [binarise(splits, LANGUAGES, tokenizer, tmp_path / str(workers), workers, print) for workers in (1, 3)]
    one, other = ({path.name: path.read_bytes() for path in data.iterdir()} for data in written)
    assert one == other


def test_data_is_reused_until_text_or_tokenizer_change(
    splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    calls = []
    original: Callable[..., object] = FileBinarizer.multiprocess_dataset
    monkeypatch.setattr(FileBinarizer, "multiprocess_dataset", lambda *a, **k: calls.append(1) or original(*a, **k))
    said: list[str] = []
    assert binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, said.append) == data
    assert (calls, said) == ([], [f"{data} is there already, of this text: reused"])
    (data / "valid.aaa-bbb.bbb.idx").unlink()
    binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    assert len(calls) == 4
    for path in splits["valid"]:
        path.write_text("ab\n")
    binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    assert len(calls) == 8
    assert len(sentences(data, "valid", "bbb")) == 1
    monkeypatch.setattr(tokenizer, "digest", lambda: "other")
    binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    assert len(calls) == 12


def test_interrupted_run_leaves_what_was_there(
    splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    before = json.loads((data / "binarised.json").read_text())
    splits["valid"][0].write_text("ab\n" * 10)

    def stops(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileBinarizer, "multiprocess_dataset", stops)
    with pytest.raises(KeyboardInterrupt):
        binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)
    assert json.loads((data / "binarised.json").read_text()) == before
    assert [path.name for path in (tmp_path / "binary").iterdir()] == [data.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"valid\.aaa is empty"),
        (b"one\ntwo\n", r"valid has 2 lines in .*valid\.aaa, but 10 in"),
        (b"one\n\xe9\n", r"valid\.aaa is not UTF-8 \(line 2"),
        (None, r"valid\.aaa cannot be read"),
    ],
)
def test_texts_of_others(
    content: bytes | None, message: str, splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path
) -> None:
    path = splits["valid"][0]
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        binarise(splits, LANGUAGES, tokenizer, tmp_path / "binary", 1, print)


def test_directory_of_others_is_left_alone(splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece-150").mkdir()
    with pytest.raises(ConfigurationError, match="not what a recipe has made"):
        binarise(splits, LANGUAGES, tokenizer, tmp_path, 1, print)


def test_pieces_that_a_dictionary_cannot_hold(
    splits: Splits, tokenizer: PieceTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "pieces", lambda: ["a", "b\nc"])
    with pytest.raises(ConfigurationError, match="that a fairseq dictionary cannot hold"):
        binarise(splits, LANGUAGES, tokenizer, tmp_path, 1, print)
