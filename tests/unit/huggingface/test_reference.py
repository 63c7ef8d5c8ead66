"""The authors' program and this package give the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn import Datastore, KNNWrapper, RetomatonWrapper
from fairseq_knn.clustering import Clusters
from tests import tiny_transformers as tiny

REFERENCE = tiny.reference()
TEXTS = tiny.tokens("test_tokens")
# min_knns, and whether pointers are extended to clusters.
SETTINGS = {"min1": (1, False), "min4": (4, False), "always_search": (9999999, False), "clusters_min1": (1, True)}
# Perplexity and searches where no entry counts twice and no pointer leaves its sequence.
OURS = {"min1": (33.92, 83), "min4": (16.18, 145), "always_search": (12.55, 260), "clusters_min1": (12.03, 21)}


def log_probs(model: Any, batch: int = 1) -> np.ndarray:
    """Of the labels, and the loss is the mean of them."""
    parts = []
    for texts in torch.split(TEXTS, batch):
        with torch.no_grad():
            output = model(input_ids=texts, labels=texts)
        scores = output.logits.log_softmax(dim=-1)[:, :-1].gather(-1, texts[:, 1:, None]).squeeze(-1)
        torch.testing.assert_close(output.loss, -scores.mean())
        parts.append(scores)
    return torch.cat(parts).numpy()


def test_datastore(texts: Path) -> None:
    store = Datastore.load(texts)
    np.testing.assert_array_equal(store.values, REFERENCE["values"])
    np.testing.assert_allclose(store.keys(0, store.entries), REFERENCE["keys"], atol=2e-3)
    assert (store.key, store.plan.kind if store.plan else None) == ("ffn_input", "language_model")
    assert store.continues is not None
    # 13 predictions of each sequence: nothing points from one sequence to the next.
    np.testing.assert_array_equal(store.continues, np.tile(np.arange(13) < 12, 150))
    assert store.log_probs is not None
    assert np.isfinite(store.log_probs[0 : store.entries]).all()


def test_base(gpt2: Any) -> None:
    np.testing.assert_allclose(log_probs(gpt2), REFERENCE["logp_base"], atol=1e-4)


def test_knn_lm(gpt2: Any, texts: Path) -> None:
    wrapper = KNNWrapper(texts, k=16)
    wrapper.break_into(gpt2)
    try:
        for batch in (1, 20):
            np.testing.assert_allclose(log_probs(gpt2, batch), REFERENCE["logp_knn_lm"], atol=1e-4)
        assert wrapper.statistics["knn_queries"] == 2 * 260
        assert (wrapper.statistics["knn_lambda"], wrapper.statistics["knn_k"]) == (0.25, 16)
    finally:
        wrapper.break_out()


@pytest.fixture(scope="module")
def clustered(texts: Path) -> Path:
    """The datastore with the reference's clusters."""
    cluster = REFERENCE["clusters"].astype(np.int32)
    Clusters("theirs", cluster, int(cluster.max()) + 1, {"method": "reference"}).save(Datastore.load(texts))
    return texts


def retomaton(store: Path, name: str, *, reference: bool) -> RetomatonWrapper:
    least, clusters = SETTINGS[name]
    named = "theirs" if clusters else None
    return RetomatonWrapper(store, k=16, min_knns=least, clusters=named, reference_counting=reference)


@pytest.mark.parametrize("name", SETTINGS)
def test_retomaton(gpt2: Any, clustered: Path, name: str) -> None:
    wrapper = retomaton(clustered, name, reference=True)
    wrapper.break_into(gpt2)
    try:
        np.testing.assert_allclose(log_probs(gpt2), REFERENCE[f"logp_retomaton_{name}"], atol=1e-4)
        searches = tiny.META["retomaton"][f"retomaton_{name}"]["searches"]
        assert wrapper.statistics["knn_searched_steps"] == searches
        assert wrapper.statistics["knn_foss"] == pytest.approx(1 - searches / 260, abs=1e-4)
    finally:
        wrapper.break_out()


@pytest.mark.parametrize("name", SETTINGS)
def test_retomaton_as_we_count(gpt2: Any, clustered: Path, name: str) -> None:
    perplexity, searches = OURS[name]
    for batch in (1, 20):
        wrapper = retomaton(clustered, name, reference=False)
        wrapper.break_into(gpt2)
        measured = float(np.exp(-log_probs(gpt2, batch).mean()))
        wrapper.break_out()
        assert measured == pytest.approx(perplexity, abs=0.01)
        assert wrapper.statistics["knn_searched_steps"] == searches


def test_without_pointers_it_is_knn_lm(gpt2: Any, texts: Path) -> None:
    wrapper = RetomatonWrapper(texts, k=16, no_pointer=True)
    wrapper.break_into(gpt2)
    np.testing.assert_allclose(log_probs(gpt2), REFERENCE["logp_knn_lm"], atol=1e-4)
    wrapper.break_out()
