"""Models of every kind build datastores and translate with them, untouched."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore
from tests import cli, toy

_TRANSFORMER = (
    *("--encoder-layers", 1, "--decoder-layers", 2, "--encoder-embed-dim", 32, "--decoder-embed-dim", 32),
    *("--encoder-ffn-embed-dim", 48, "--decoder-ffn-embed-dim", 48),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
)
ARCHITECTURES = {
    "transformer": ("--arch", "transformer", *_TRANSFORMER),
    "pre-norm transformer": (
        *("--arch", "transformer", *_TRANSFORMER, "--encoder-normalize-before", "--decoder-normalize-before"),
    ),
    "transformer_wmt19_de_en": ("--arch", "transformer_wmt19_de_en", *_TRANSFORMER),
    "lightconv": (
        *("--arch", "lightconv", *_TRANSFORMER, "--encoder-conv-dim", 32, "--decoder-conv-dim", 32),
        *("--encoder-kernel-size-list", "[3]", "--decoder-kernel-size-list", "[3,5]"),
    ),
    "lstm": (
        *("--arch", "lstm", "--encoder-embed-dim", 32, "--encoder-hidden-size", 32),
        *("--decoder-embed-dim", 32, "--decoder-hidden-size", 32, "--decoder-out-embed-dim", 24),
    ),
    "lstm, tied": (
        *("--arch", "lstm", "--encoder-embed-dim", 32, "--encoder-hidden-size", 32, "--decoder-embed-dim", 32),
        *("--decoder-hidden-size", 32, "--decoder-out-embed-dim", 32, "--share-decoder-input-output-embed"),
    ),
    "fconv": (
        *("--arch", "fconv", "--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--decoder-out-embed-dim", 24),
        *("--encoder-layers", "[(32, 3)]", "--decoder-layers", "[(32, 3)] * 2"),
    ),
}
DIMENSIONS = {"lstm": 24, "fconv": 24}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first sentences of the test split, some fewer than a multiple of eight."""
    path = tmp_path_factory.mktemp("data")
    toy.write_split(path, "test", *(toy.read_side(toy.DOMAIN, "test", side)[:45] for side in ("de", "en")))
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_builds_and_translates(name: str, data: Path, tmp_path: Path) -> None:
    model = toy.train(tmp_path, *ARCHITECTURES[name])
    path = tmp_path / "datastore"
    toy.build(path, split="test", data=data, model=model)
    store = Datastore.load(path)
    np.testing.assert_array_equal(store.values, np.concatenate(toy.read_side(data, "test", "en")))
    assert store.dimension == DIMENSIONS.get(name, 32)

    with_lambda_zero = toy.translate(path, "--knn-lambda", 0, data=data, model=model)
    assert len(with_lambda_zero.lines("H")) == 45
    assert with_lambda_zero.lines() == translate_with_stock_task(data, model).lines()
    half = toy.translate(path, "--knn-lambda", 0.5, data=data, model=model)
    assert half.lines("D") != with_lambda_zero.lines("D")
    # The datastore holds the very sentences: with the neighbours alone they come back, read as a whole and
    # decoded step by step.
    alone = ("--knn-lambda", 1, "--knn-k", 1)
    scored = toy.translate(path, "--score-reference", *alone, data=data, model=model)
    scores = np.concatenate([hypothesis.positional for hypothesis in scored.hypotheses().values()])
    assert np.mean(scores == 0) > 0.98
    assert toy.translate(path, "--beam", 1, *alone, data=data, model=model).bleu > 95


def translate_with_stock_task(data: Path, model: Path) -> cli.Run:
    return cli.generate(
        *(data, "--task", "translation", "--path", model, "--gen-subset", "test", "--beam", 4),
        *("--required-batch-size-multiple", 1),
    )
