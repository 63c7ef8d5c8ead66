"""A model from fairseq's hub translates with a datastore, and without it again."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from fairseq.models.transformer import TransformerModel

from fairseq_knn import Datastore, KNNSaver, KNNWrapper, RetomatonWrapper
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.models.knn_decoder import KnnDecoder
from tests import toy

KNNBOX = toy.TOY / "knnbox_datastore"
SOURCES = (toy.TOY / "domain.test.de").read_text(encoding="utf-8").splitlines()
REFERENCES = (toy.TOY / "domain.test.en").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def hub() -> Iterator[Any]:
    logging.disable(logging.INFO)
    yield TransformerModel.from_pretrained(str(toy.TOY), "base.pt", str(toy.DOMAIN))
    logging.disable(logging.NOTSET)


def translate(hub: Any) -> list[str]:
    translations: list[str] = hub.translate(SOURCES, beam=4, lenpen=0.6, max_len_a=1.2, max_len_b=10)
    return translations


def bleu(translations: list[str]) -> float:
    return float(sacrebleu.corpus_bleu(translations, [REFERENCES], tokenize="none").score)


@pytest.fixture(scope="module")
def plain(hub: Any) -> list[str]:
    return translate(hub)


def test_broken_into_and_out_again(hub: Any, plain: list[str]) -> None:
    decoder = hub.models[0].decoder
    stock, attributes = type(decoder), set(vars(decoder))
    wrapper = KNNWrapper(KNNBOX, k=8, lmbda=0.7, temperature=10)
    assert wrapper.break_into(hub) is hub
    assert isinstance(decoder, KnnDecoder)
    expected = toy.TOY / "expected.vanilla.txt"
    (by_knnbox,) = [line for line in expected.read_text(encoding="utf-8").splitlines() if line.startswith("Generate")]
    assert bleu(translate(hub)) == pytest.approx(float(by_knnbox.split()[6]), abs=0.5)
    assert wrapper.retrievers[0].statistics.queries > 1000
    assert wrapper.statistics["knn_queries"] == wrapper.retrievers[0].statistics.queries
    with pytest.raises(ConfigurationError, match="in a model already"):
        wrapper.break_into(hub)
    with pytest.raises(ConfigurationError, match="the model consults or fills a datastore already"):
        KNNWrapper(KNNBOX).break_into(hub)
    assert isinstance(decoder, KnnDecoder)
    wrapper.break_out()
    assert type(decoder) is stock
    assert set(vars(decoder)) == attributes
    assert not hub.models[0]._load_state_dict_post_hooks
    assert translate(hub) == plain
    wrapper.break_out()  # once more does nothing


def test_opened_datastores_of_this_model(hub: Any, datastore: Any, plain: list[str]) -> None:
    """A datastore knows its model; that of the hub is recognised although it was loaded before."""
    wrapper = KNNWrapper([Datastore.load(datastore)], skip_threshold=0.99, backend="torch")
    wrapper.break_into(hub.models[0])
    try:
        assert bleu(translate(hub)) > bleu(plain) + 30
    finally:
        wrapper.break_out()


def test_a_datastore_of_another_model(hub: Any, datastore: Any, other_model: Any, tmp_path: Any) -> None:
    assert toy.build(tmp_path / "other", model=other_model).status == 0
    wrapper = KNNWrapper(tmp_path / "other")
    with pytest.raises(DatastoreError, match="was built by another model"):
        wrapper.break_into(hub)
    assert not isinstance(hub.models[0].decoder, KnnDecoder)
    insisting = KNNWrapper(tmp_path / "other", allow_mismatch=True)
    insisting.break_into(hub)
    insisting.break_out()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "knn-k is 0"),
        ({"k": 10**6}, "k is 1000000"),
        ({"lmbda": 1.5}, "lambda is 1.5"),
        ({"temperature": 0}, "temperature is 0"),
        ({"skip_threshold": 0}, "skip-threshold is 0"),
        ({"prob": 32}, "'prob' is no setting of retrieval: choose among k, lmbda"),
        ({"mode": "build_datastore"}, "'mode' is no setting of retrieval"),
        ({"backend": "scann"}, "knn-backend is 'scann', but must be one of auto, faiss, torch"),
        ({"device": "gpu"}, "knn-device is 'gpu'"),
        ({"k": "8"}, "knn-k is '8', but must be a whole number"),
        ({"skip_threshold": "0.9"}, "skip-threshold is '0.9'"),
    ],
)
def test_settings_out_of_range(hub: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        KNNWrapper(KNNBOX, **settings).break_into(hub)
    assert not isinstance(hub.models[0].decoder, KnnDecoder)


def test_retomaton(hub: Any, datastore: Any, plain: list[str]) -> None:
    """The same wrapper as for models of transformers. (The toy's words are in random order, so following them is worse
    than searching.)"""
    searching = KNNWrapper(datastore)
    searching.break_into(hub)
    expected = bleu(translate(hub))
    searching.break_out()
    measured = {}
    for least in (2, 9999):
        wrapper = RetomatonWrapper(datastore, min_knns=least)
        wrapper.break_into(hub)
        measured[least] = bleu(translate(hub)), wrapper.statistics["knn_foss"]
        wrapper.break_out()
    assert measured[2][0] < measured[9999][0]
    assert measured[9999][0] > bleu(plain) + 20
    assert 0 == measured[9999][1] < measured[2][1] < 1
    without = RetomatonWrapper(datastore, no_pointer=True, max_knns=16, clusters="none")
    without.break_into(hub)
    assert bleu(translate(hub)) == pytest.approx(expected, abs=0.01)
    without.break_out()
    assert translate(hub) == plain


def test_saver(hub: Any, small_datastore: Path, tmp_path: Path) -> None:
    """What is scored in a program of one's own is stored as fairseq-generate stores it."""
    model = hub.models[0]
    hub.task.load_dataset("valid")
    dataset = hub.task.dataset("valid")
    saver = KNNSaver(tmp_path / "store", sequences=len(dataset), key="decoder_output", split="valid")
    saver.break_into(hub)
    with pytest.raises(ConfigurationError, match=r"made of what should follow, .* score sentences"):
        hub.translate(SOURCES[:1])
    with pytest.raises(ConfigurationError, match="consults or fills a datastore already"):
        KNNWrapper(KNNBOX).break_into(hub)
    with torch.no_grad():
        for start in range(saver.stored, len(dataset), 7):
            rows = range(start, min(start + 7, len(dataset)))
            sample = dataset.collater([dataset[row] for row in rows])
            # The collater sorts by length.
            order = sample["id"].argsort()
            inputs = {name: tensor[order] for name, tensor in sample["net_input"].items()}
            output = model(**inputs)
            model.get_normalized_probs(output, log_probs=True, sample={"target": sample["target"][order]})
    saver.break_out()
    assert not isinstance(model.decoder, KnnDecoder)
    stored, expected = Datastore.load(tmp_path / "store"), Datastore.load(small_datastore)
    assert stored.plan is not None
    assert expected.plan is not None
    assert (stored.plan.model, stored.plan.vocabulary) == (expected.plan.model, expected.plan.vocabulary)
    np.testing.assert_array_equal(stored.values, expected.values)
    np.testing.assert_allclose(stored.keys(0, stored.entries), expected.keys(0, expected.entries), atol=0.02)
    assert stored.log_probs is not None
    assert expected.log_probs is not None
    np.testing.assert_allclose(stored.log_probs[:], expected.log_probs[:], atol=1e-4)
    np.testing.assert_array_equal(stored.continues, expected.continues)
