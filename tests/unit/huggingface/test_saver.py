"""Datastores from forwards: what is in them, interrupted builds, and what is said of mistakes."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn import Datastore, KNNSaver, KNNWrapper
from fairseq_knn.cli.main import main
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.huggingface.layers import HiddenStateTap
from tests import tiny_transformers as tiny


def same(one: Path, other: Path) -> None:
    first, second = Datastore.load(one), Datastore.load(other)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_allclose(first.keys(0, first.entries), second.keys(0, second.entries), atol=2e-3)
    assert first.continues is not None
    assert second.continues is not None
    np.testing.assert_array_equal(first.continues, second.continues)


def test_translations(marian: Any, translations: Path) -> None:
    """Every label that counts is a value, in its place; the key is the state that predicts it."""
    store = Datastore.load(translations)
    batches = tiny.pairs(100)
    labels = torch.cat([batch["labels"] for batch in batches])
    assert store.plan is not None
    assert store.plan.kind == "translation"
    np.testing.assert_array_equal(store.values, labels[labels != -100])
    tap = HiddenStateTap(marian, "ffn_input")
    with torch.no_grad():
        output = marian(**batches[0])
    states = tap.take(4)
    tap.remove()
    counted = batches[0]["labels"] != -100
    number = int(counted.sum())
    np.testing.assert_allclose(store.keys(0, number), states[counted].numpy(), atol=2e-3)
    scores = output.logits.log_softmax(dim=-1).gather(-1, batches[0]["labels"].clamp(min=0)[..., None]).squeeze(-1)
    assert store.log_probs is not None
    np.testing.assert_allclose(store.log_probs[0:number], scores[counted].numpy(), atol=1e-4)
    lengths = counted.sum(dim=1).tolist()
    assert store.continues is not None
    assert store.continues[:number].tolist() == [place < n - 1 for n in lengths for place in range(n)]


def test_interrupted_build_goes_on(gpt2: Any, texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = tiny.tokens("datastore_tokens")
    store = tmp_path / "store"
    saver = KNNSaver(store, sequences=150, shard_sequences=40)
    saver.break_into(gpt2)
    assert saver.stored == 0
    with torch.no_grad():
        gpt2(input_ids=blocks[:90], labels=blocks[:90])  # two files and a part of the third
    with pytest.raises(DatastoreError, match=r"90 of the 150 sequences .* have come: give it those from number 80 on"):
        saver.finish()
    with caplog.at_level(logging.WARNING):
        saver.break_out()
    assert "is unfinished, for 90 of the 150" in caplog.text
    with pytest.raises(DatastoreError, match="is unfinished"):
        Datastore.load(store)

    with pytest.raises(DatastoreError, match="another plan"):
        KNNSaver(store, sequences=149, shard_sequences=40).break_into(gpt2)
    assert not gpt2._forward_hooks
    saver = KNNSaver(store, sequences=150, shard_sequences=40)
    saver.break_into(gpt2)
    assert saver.stored == 80
    with torch.no_grad():
        gpt2(input_ids=blocks[80:], labels=blocks[80:])
    saver.break_out()
    same(store, texts)
    with pytest.raises(DatastoreError, match="holds a finished datastore"):
        KNNSaver(store, sequences=150).break_into(gpt2)


def test_windows_of_one_text(gpt2: Any, texts: Path, tmp_path: Path) -> None:
    """Windows with an overlap, whose labels begin where those of the window before ended, predict every token."""
    text = tiny.tokens("datastore_tokens").reshape(-1)[:60]
    windows, labels = [], []
    for start in range(0, 60, 10):
        window = text[max(0, start - 10) : start + 10]
        label = window.clone()
        label[:-10] = -100
        windows.append(window)
        labels.append(label)
    saver = KNNSaver(tmp_path / "store", sequences=6, documents=[0] * 6)
    saver.break_into(gpt2)
    with torch.no_grad():
        for window, label in zip(windows, labels, strict=True):
            gpt2(input_ids=window[None], labels=label[None])
    saver.break_out()
    store = Datastore.load(tmp_path / "store")
    np.testing.assert_array_equal(store.values, text[1:])
    assert store.continues is not None
    assert store.continues.tolist() == [True] * 58 + [False]


def test_mistakes(gpt2: Any, texts: Path, tmp_path: Path) -> None:
    blocks = tiny.tokens("datastore_tokens")
    with pytest.raises(ConfigurationError, match="sequences is 0"):
        KNNSaver(tmp_path / "store", sequences=0)
    with pytest.raises(ConfigurationError, match="2 numbers of documents for 3 sequences"):
        KNNSaver(tmp_path / "store", sequences=3, documents=[0, 1])
    saver = KNNSaver(tmp_path / "store", sequences=3)
    with pytest.raises(ConfigurationError, match="in no model"):
        _ = saver.stored
    with pytest.raises(ConfigurationError, match=r"Linear is neither .*'fairseq-knn\[transformers\]'"):
        saver.break_into(torch.nn.Linear(2, 2))
    saver.break_into(gpt2)
    try:
        with pytest.raises(ConfigurationError, match="in a model already"):
            saver.break_into(gpt2)
        with pytest.raises(ConfigurationError, match="consults or fills a datastore already"):
            KNNWrapper(texts).break_into(gpt2)
        with pytest.raises(ConfigurationError, match=r"this forward has none: pass labels="):
            gpt2(input_ids=blocks[:1])
        with pytest.raises(DatastoreError, match="more sequences than the 3 that"):
            gpt2(input_ids=blocks[:4], labels=blocks[:4])
    finally:
        saver.break_out()


def test_nothing_is_wrong_with_them(texts: Path, translations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their ids are not those of a fairseq dictionary, whose 1 is padding and 2 the end of a sentence."""
    for store in (texts, translations):
        assert (Datastore.load(store).values == 1).any()
        assert main(["verify", str(store)]) == 0
        assert "</s>" not in capsys.readouterr().out
