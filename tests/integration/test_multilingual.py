"""The multilingual task trains in two directions, and builds and uses a datastore for each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import UserError
from tests import cli, toy

TASK = ("--lang-pairs", "de-en,en-de", "--langs", "de,en", "--decoder-langtok")
SENTENCES = 45  # of the test split: not a multiple of eight


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data with one dictionary for both languages, which the task demands."""
    path = tmp_path_factory.mktemp("data")
    old = {side: Dictionary.load(str(toy.DOMAIN / f"dict.{side}.txt")) for side in ("de", "en")}
    joint = Dictionary()
    for dictionary in old.values():
        for symbol in dictionary.symbols[dictionary.nspecial :]:
            joint.add_symbol(symbol)
    for side in old:
        joint.save(str(path / f"dict.{side}.txt"))

    def translated(source: Path, split: str, side: str) -> list[torch.Tensor]:
        symbols = old[side].symbols
        return [
            torch.tensor([joint.index(symbols[token]) for token in sentence])
            for sentence in toy.read_side(source, split, side)[:300]
        ]

    toy.write_split(path, "train", *(translated(toy.GENERAL, "train", side) for side in ("de", "en")))
    toy.write_split(path, "test", *(translated(toy.DOMAIN, "test", side)[:SENTENCES] for side in ("de", "en")))
    return path


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.train(
        tmp_path_factory.mktemp("model"),
        *("--task", "translation_multi_simple_epoch_knn", *TASK, "--arch", "transformer"),
        *("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 32, "--decoder-embed-dim", 32),
        *("--encoder-ffn-embed-dim", 48, "--decoder-ffn-embed-dim", 48),
        *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--share-all-embeddings"),
        data=data,
    )


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("en", "de")])
def test_a_direction(source: str, target: str, data: Path, model: Path, tmp_path: Path) -> None:
    def generate(*arguments: object, task: str = "translation_multi_simple_epoch_knn") -> cli.Run:
        return cli.generate(
            *(data, "--task", task, *TASK, "--source-lang", source, "--target-lang", target),
            *("--path", model, "--gen-subset", "test", "--beam", 2, *arguments),
        )

    path = ("--knn-datastore-path", tmp_path)
    built = generate("--knn-mode", "build_datastore", "--score-reference", "--quiet", *path)
    assert f"{SENTENCES} of {SENTENCES} sentences of 'test' processed" in built.closing_line
    sentences = toy.read_side(data, "test", target)
    values = np.split(Datastore.load(tmp_path).values, np.cumsum([len(s) + 1 for s in sentences])[:-1])
    language = values[0][0]  # every target sentence begins with the token of its language
    for stored, sentence in zip(values, sentences, strict=True):
        np.testing.assert_array_equal(stored, [language, *sentence])

    stock = generate("--required-batch-size-multiple", 1, task="translation_multi_simple_epoch")
    base = generate("--knn-lambda", 0, *path)
    assert base.lines() == stock.lines()
    assert len(base.lines("H")) == SENTENCES
    assert f"{SENTENCES} of {SENTENCES} sentences of 'test' processed" in base.closing_line
    assert generate("--knn-lambda", 0.5, *path).lines("D") != base.lines("D")
    alone = generate("--knn-lambda", 1, "--knn-k", 1, "--beam", 1, *path)
    assert alone.bleu > 95


def test_combiners_are_not_trained_here(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train the combiner with --task translation_knn, one language pair at a time"):
        toy.train_combiner(
            tmp_path / "save",
            tmp_path / "none",
            *("--task", "translation_multi_simple_epoch_knn", *TASK, "--finetune-from-model", model),
            *("--knn-combiner", "adaptive"),
            data=data,
        )
