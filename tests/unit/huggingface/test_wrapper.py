"""Models of transformers with datastores: what changes, what does not, and what is said of mistakes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn import (
    AdaptiveCombiner,
    Datastore,
    KNNSaver,
    KNNWrapper,
    RetomatonWrapper,
    RobustCombiner,
    VanillaCombiner,
)
from fairseq_knn.combiners import CombinerSizes, TrainedCombiner, mix
from fairseq_knn.errors import CombinerError, ConfigurationError, DatastoreError
from fairseq_knn.huggingface.layers import HiddenStateTap
from fairseq_knn.retrieval import Retriever
from tests import tiny_transformers as tiny
from tests.support import write_datastore

WRAPPERS = (KNNWrapper, RetomatonWrapper)


def forward(model: Any, **batch: Tensor) -> Any:
    with torch.no_grad():
        return model(**batch)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_broken_into_and_out_again(gpt2: Any, texts: Path, wrapper: type[KNNWrapper]) -> None:
    blocks = tiny.tokens("test_tokens")
    attributes, plain = set(vars(gpt2)), forward(gpt2, input_ids=blocks, labels=blocks)
    broken = wrapper(texts, k=16)
    assert broken.break_into(gpt2) is gpt2
    mixed = forward(gpt2, input_ids=blocks, labels=blocks)
    assert (mixed.loss - plain.loss).abs() > 1
    with pytest.raises(ConfigurationError, match="this wrapper is in a model already"):
        broken.break_into(gpt2)
    with pytest.raises(ConfigurationError, match="the model consults or fills a datastore already"):
        KNNWrapper(texts).break_into(gpt2)
    broken.break_out()
    again = forward(gpt2, input_ids=blocks, labels=blocks)
    assert torch.equal(again.logits, plain.logits)
    assert torch.equal(again.loss, plain.loss)
    assert set(vars(gpt2)) == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in gpt2.modules())
    assert broken.statistics["knn_queries"] > 0
    broken.break_out()  # once more does nothing


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_lambda_0_is_the_model_alone(gpt2: Any, texts: Path, wrapper: type[KNNWrapper]) -> None:
    blocks = tiny.tokens("test_tokens")
    plain = forward(gpt2, input_ids=blocks, labels=blocks)
    broken = wrapper(texts, lmbda=0)
    broken.break_into(gpt2)
    assert torch.equal(forward(gpt2, input_ids=blocks, labels=blocks).logits, plain.logits)
    assert (broken.statistics, broken.retrievers) == ({}, [])
    broken.break_out()


def test_defaults_of_language_models(gpt2: Any, texts: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = tiny.tokens("test_tokens")
    broken = KNNWrapper(texts)
    broken.break_into(gpt2)
    assert (broken.statistics["knn_k"], broken.statistics["knn_lambda"]) == (1024, 0.25)
    broken.break_out()
    with caplog.at_level("INFO"):
        broken = KNNWrapper(texts, k=10**6)
        broken.break_into(gpt2)
    assert "there are 1,950 entries, fewer than k 1,000,000: all are neighbours" in caplog.text
    assert torch.isfinite(forward(gpt2, input_ids=blocks, labels=blocks).loss)
    broken.break_out()


def by_hand(model: Any, store: Path, batch: dict[str, Tensor], combiner: VanillaCombiner, k: int) -> Tensor:
    """Log-probabilities of model and neighbours at every position, (B, T, V)."""
    tap = HiddenStateTap(model, "ffn_input")
    log_probs = forward(model, **batch).logits.float().log_softmax(dim=-1)
    query = tap.take(len(log_probs))
    tap.remove()
    neighbours = Retriever(Datastore.load(store), k=k).retrieve(query)
    mixture = combiner.mixture(query, neighbours, log_probs)
    return mix(log_probs, neighbours.values, mixture)


def test_translation_models(marian: Any, translations: Path) -> None:
    """The bias of the logits, which comes after the output layer, is in the model's probabilities."""
    for batch in tiny.pairs(8, seed=7):
        plain = forward(marian, **batch).logits
        expected = by_hand(marian, translations, batch, VanillaCombiner(0.7, 10.0), 8)
        broken = KNNWrapper(translations)
        broken.break_into(marian)
        output = forward(marian, **batch)
        pair = marian(**batch, return_dict=False)
        broken.break_out()
        counted = batch["labels"] != -100
        torch.testing.assert_close(output.logits[counted], expected[counted])
        assert torch.equal(output.logits[~counted], plain[~counted])
        loss = -expected.gather(-1, batch["labels"].clamp(min=0)[..., None]).squeeze(-1)[counted].mean()
        torch.testing.assert_close(output.loss, loss)
        torch.testing.assert_close(pair[0].detach(), loss)
        torch.testing.assert_close(pair[1].detach(), output.logits)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_sequences_of_a_batch_do_not_see_each_other(marian: Any, translations: Path, wrapper: type[KNNWrapper]) -> None:
    batch = tiny.pairs(4, seed=7)[0]
    broken = wrapper(translations)
    broken.break_into(marian)
    together = forward(marian, **batch).logits
    alone = torch.cat([forward(marian, **{n: t[row : row + 1] for n, t in batch.items()}).logits for row in range(4)])
    broken.break_out()
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-4)


def test_labels_that_do_not_count_are_not_searched(gpt2: Any, texts: Path) -> None:
    blocks = tiny.tokens("test_tokens")[:3]
    labels = blocks.clone()
    labels[:, :9] = -100
    plain = forward(gpt2, input_ids=blocks).logits
    broken = KNNWrapper(texts, k=16)
    broken.break_into(gpt2)
    logits = forward(gpt2, input_ids=blocks, labels=labels).logits
    broken.break_out()
    assert broken.statistics["knn_queries"] == 3 * 5
    # Position 8 predicts label 9; the last predicts none.
    untouched = [*range(8), 13]
    assert torch.equal(logits[:, untouched], plain[:, untouched])
    assert (logits[:, 8:13] != plain[:, 8:13]).any(dim=-1).all()


def test_positions_without_labels(gpt2: Any, texts: Path) -> None:
    """The last, or the last that logits are asked for."""
    blocks = tiny.tokens("test_tokens")[:3]
    everything = by_hand(gpt2, texts, {"input_ids": blocks}, VanillaCombiner(0.25, 1.0), 16)
    plain = forward(gpt2, input_ids=blocks).logits
    broken = KNNWrapper(texts, k=16)
    broken.break_into(gpt2)
    logits = forward(gpt2, input_ids=blocks).logits
    kept = forward(gpt2, input_ids=blocks, logits_to_keep=3).logits
    with pytest.raises(ConfigurationError, match="logits_to_keep is a tensor"):
        gpt2(input_ids=blocks, logits_to_keep=torch.tensor([1, 2]))
    broken.break_out()
    assert torch.equal(logits[:, :-1], plain[:, :-1])
    torch.testing.assert_close(logits[:, -1], everything[:, -1])
    torch.testing.assert_close(kept, everything[:, -3:])


def test_threshold(gpt2: Any, texts: Path) -> None:
    blocks = tiny.tokens("test_tokens")
    plain = forward(gpt2, input_ids=blocks, labels=blocks).logits
    sure = plain[:, :-1].log_softmax(dim=-1).amax(dim=-1).exp() >= 0.5
    broken = KNNWrapper(texts, k=16, skip_threshold=0.5)
    broken.break_into(gpt2)
    logits = forward(gpt2, input_ids=blocks, labels=blocks).logits
    broken.break_out()
    assert 0 < sure.sum() < 260
    assert torch.equal((logits == plain)[:, :-1].all(dim=-1), sure)
    assert broken.statistics["knn_skipped"] == pytest.approx(sure.float().mean().item(), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    """Log-probabilities are float32; that of an unlikely token would be off in half precision."""
    model, blocks = tiny.gpt2().to(dtype), tiny.tokens("test_tokens")
    store = tiny.store_texts(tmp_path / "store", model, tiny.tokens("datastore_tokens"))
    expected = by_hand(model, store, {"input_ids": blocks}, VanillaCombiner(0.25, 1.0), 16)
    broken = KNNWrapper(store, k=16)
    broken.break_into(model)
    output = forward(model, input_ids=blocks, labels=blocks)
    broken.break_out()
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits[:, :-1], expected[:, :-1])
    scores = output.logits[:, :-1].gather(-1, blocks[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(output.loss, -scores.mean())


def test_gradient_goes_through_the_mixture(gpt2: Any, texts: Path) -> None:
    blocks = tiny.tokens("test_tokens")
    weight = gpt2.transformer.h[0].mlp.c_fc.weight
    tap = HiddenStateTap(gpt2, "ffn_input")
    log_probs = gpt2(input_ids=blocks).logits.log_softmax(dim=-1)
    query = tap.take(20)
    tap.remove()
    neighbours = Retriever(Datastore.load(texts), k=16).retrieve(query)
    mixed = mix(log_probs, neighbours.values, VanillaCombiner(0.25, 1.0).mixture(query, neighbours, log_probs))
    loss = torch.nn.functional.cross_entropy(mixed[:, :-1].flatten(0, 1), blocks[:, 1:].flatten())
    (expected,) = torch.autograd.grad(loss, weight)
    broken = KNNWrapper(texts, k=16)
    broken.break_into(gpt2)
    (gradient,) = torch.autograd.grad(gpt2(input_ids=blocks, labels=blocks).loss, weight)
    broken.break_out()
    torch.testing.assert_close(gradient, expected)


def test_several_datastores_are_searched_as_one(gpt2: Any, texts: Path, tmp_path: Path) -> None:
    blocks, everything = tiny.tokens("test_tokens"), tiny.tokens("datastore_tokens")
    parts = [tiny.store_texts(tmp_path / str(number), gpt2, part) for number, part in enumerate(everything.split(70))]
    logits = []
    for stores in ([Datastore.load(texts)], parts):
        for wrapper in WRAPPERS:
            broken = wrapper(stores, k=16)
            broken.break_into(gpt2)
            logits.append(forward(gpt2, input_ids=blocks, labels=blocks).logits)
            broken.break_out()
    torch.testing.assert_close(logits[0], logits[2])
    torch.testing.assert_close(logits[1], logits[3])


@pytest.mark.parametrize("kind", [AdaptiveCombiner, RobustCombiner])
def test_trained_combiners(marian: Any, translations: Path, tmp_path: Path, kind: type[TrainedCombiner]) -> None:
    """Robust kNN-MT needs the log-probabilities that the saver stores."""
    torch.manual_seed(1)
    kind.fresh(CombinerSizes(4, 16, tiny.VOCABULARY)).dump(tmp_path / "combiner")
    batch = tiny.pairs(4, seed=7)[0]
    plain = forward(marian, **batch).logits.log_softmax(dim=-1)
    broken = KNNWrapper(translations, combiner_path=str(tmp_path / "combiner"))
    broken.break_into(marian)
    logits = forward(marian, **batch).logits
    broken.break_out()
    counted = batch["labels"] != -100
    assert (logits[counted] != plain[counted]).any(dim=-1).all()
    torch.testing.assert_close(logits[counted].logsumexp(dim=-1), torch.zeros(int(counted.sum())), atol=1e-5, rtol=0)
    assert broken.statistics["knn_k"] == 4
    assert 0 < broken.statistics["knn_lambda"] < 1
    with pytest.raises(ConfigurationError, match="use one of the two"):
        RetomatonWrapper(translations, combiner_path=str(tmp_path / "combiner")).break_into(marian)
    kind.fresh(CombinerSizes(4, 16, 50)).dump(tmp_path / "larger")
    with pytest.raises(CombinerError, match="trained with 50 symbols, MarianMTModel predicts 40"):
        KNNWrapper(translations, combiner_path=str(tmp_path / "larger")).break_into(marian)


def test_datastores_of_others(gpt2: Any, marian: Any, texts: Path, translations: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(gpt2)
    other.transformer.h[0].mlp.c_fc.weight.data[0, 0] += 1
    with pytest.raises(DatastoreError, match=r"built by another model \(GPT2LMHeadModel .*allow_mismatch=True"):
        KNNWrapper(texts).break_into(other)
    insisting = KNNWrapper(texts, allow_mismatch=True)
    insisting.break_into(other)
    insisting.break_out()
    with pytest.raises(DatastoreError, match="built with a vocabulary of 40 tokens, GPT2LMHeadModel predicts 48"):
        KNNWrapper(translations).break_into(gpt2)
    kind = write_datastore(tmp_path / "kind", np.zeros((9, 32)), np.ones(9), vocabulary_size=48, key="ffn_input")
    with pytest.raises(DatastoreError, match="is a datastore of translations, but GPT2LMHeadModel is a language model"):
        KNNWrapper(kind).break_into(gpt2)
    with pytest.raises(DatastoreError, match=r"keys of different kinds .* asked for is decoder_output"):
        KNNWrapper(texts, key="decoder_output").break_into(gpt2)
    for model in (gpt2, other, marian):
        assert not model._forward_hooks


def test_mistakes(gpt2: Any, texts: Path) -> None:
    blocks = tiny.tokens("test_tokens")
    for settings, message in (
        ({"k": 0}, "knn-k is 0"),
        ({"lmbda": 2}, "lambda is 2"),
        ({"min_knns": 1}, "'min_knns' is no setting of retrieval"),
        ({"backend": "scann"}, "must be one of auto, faiss, torch"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            KNNWrapper(texts, **settings)
    with pytest.raises(ConfigurationError, match="max-knns is 0"):
        RetomatonWrapper(texts, max_knns=0)
    sure = KNNWrapper(texts, lmbda=1)
    sure.break_into(gpt2)
    with pytest.raises(ConfigurationError, match=r"lambda is 1, .* perplexity is infinite"):
        gpt2(input_ids=blocks, labels=blocks)
    sure.break_out()
    with pytest.raises(ConfigurationError, match="there is no datastore"):
        KNNWrapper([])
    with pytest.raises(DatastoreError, match="there is no datastore in"):
        KNNWrapper(texts / "shards")


def test_wrappers_of_several_kinds(gpt2: Any, texts: Path) -> None:
    """The saver and the wrapper know each other."""
    saver = KNNSaver(texts.parent / "another", sequences=1)
    broken = KNNWrapper(texts)
    broken.break_into(gpt2)
    with pytest.raises(ConfigurationError, match="consults or fills a datastore already"):
        saver.break_into(gpt2)
    broken.break_out()
