"""generate() with pointers, against a calculation that knows only the tokens of every hypothesis."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from fairseq_knn import Datastore, KNNWrapper, RetomatonWrapper
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.layers import HiddenStateTap
from fairseq_knn.huggingface.pointing_cache import PointingCache
from tests import tiny_transformers as tiny

K, LAMBDA = 6, 0.6
# Batches of prompts, of which some beams are taken from one hypothesis and others end.
PROMPTS = tiny.tokens("test_tokens")[:3, :4]
SOURCES = {name: tensor for name, tensor in tiny.pairs(4, seed=5)[0].items() if name != "labels"}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 4, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
    "sampling beams": {"do_sample": True, "num_beams": 3},
}


class SlowRetomaton:
    """One query, one hypothesis and one entry at a time, in float64, without the model's cache.

    Args:
        store: the datastore.
        temperature: squared distances are divided by it.
        least: with fewer pointers the datastore is searched.
    """

    def __init__(self, store: Datastore, temperature: float, least: int) -> None:
        self.keys = store.keys(0, store.entries).astype(np.float64)
        self.values, self.continues = store.values.tolist(), store.continues
        self.temperature, self.least = temperature, least

    def log_probs(self, states: Tensor, logits: Tensor, emitted: list[int]) -> Tensor:
        """Of what follows the last token emitted.

        Args:
            states, logits: of the last position of the prompt and those of all tokens emitted since, (t + 1, ...).
            emitted: these t tokens.
        """
        found: list[tuple[float, int]] = []
        for step, state in enumerate(states.double().numpy()):
            token = emitted[step - 1] if step else None
            pointers = [entry + 1 for _, entry in sorted(found) if self.values[entry] == token and self.goes_on(entry)]
            distances = ((self.keys - state) ** 2).sum(axis=1)
            entries = list(np.argsort(distances, kind="stable")[:K]) if len(pointers) < self.least else []
            found = [(distances[entry], int(entry)) for entry in dict.fromkeys([*entries, *pointers])]
        weights = [math.exp((min(found)[0] - distance) / self.temperature) for distance, _ in found]
        probs = (1 - LAMBDA) * logits[-1].double().softmax(dim=-1)
        for weight, (_, entry) in zip(weights, found, strict=True):
            probs[self.values[entry]] += LAMBDA * weight / sum(weights)
        return probs.log()

    def goes_on(self, entry: int) -> bool:
        assert self.continues is not None
        return bool(self.continues[entry])


def from_tokens(model: Any, slow: SlowRetomaton, prompt: int, source: dict[str, Tensor]) -> Callable[..., Tensor]:
    """What generate() calls with all tokens of every hypothesis, to put our scores in the place of the model's."""
    tap = HiddenStateTap(model, "ffn_input")

    def scores(input_ids: Tensor, given: Tensor) -> Tensor:
        if source:
            group = len(input_ids) // len(source["input_ids"])
            rows = torch.arange(len(input_ids)) // group
            batch = {name: tensor[rows] for name, tensor in source.items()} | {"decoder_input_ids": input_ids}
        else:
            batch = {"input_ids": input_ids}
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits
        states = tap.take(len(input_ids))
        result = [
            slow.log_probs(states[row, prompt - 1 :], logits[row, prompt - 1 :], input_ids[row, prompt:].tolist())
            for row in range(len(input_ids))
        ]
        return torch.stack(result).float()

    scores.tap = tap  # type: ignore[attr-defined]
    return scores


def generated(model: Any, batch: dict[str, Tensor], way: str, **options: Any) -> Any:
    torch.manual_seed(3)
    return model.generate(
        **batch,
        max_new_tokens=8,
        # Chosen anew, in the order of what is likeliest, from log-probabilities that differ in their last digits.
        **WAYS[way],
        top_k=0,
        return_dict_in_generate=True,
        output_scores=True,
        renormalize_logits=False,
        **options,
    )


@pytest.fixture(params=["gpt2", "marian", "t5"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path, dict[str, Tensor], int]:
    """Model, datastore, what is generated from, and the length of the (decoder's) prompt."""
    if request.param == "gpt2":
        return request.getfixturevalue("gpt2"), request.getfixturevalue("texts"), {"input_ids": PROMPTS}, 4
    if request.param == "marian":
        return request.getfixturevalue("marian"), request.getfixturevalue("translations"), SOURCES, 1
    model = tiny.t5()
    return model, tiny.store_pairs(tmp_path / "store", model, tiny.pairs(100)), SOURCES, 1


@pytest.mark.parametrize("least", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_pointers_follow_the_hypotheses(
    setting: tuple[Any, Path, dict[str, Tensor], int], way: str, least: int
) -> None:
    model, store, batch, prompt = setting
    temperature = 5.0
    slow = SlowRetomaton(Datastore.load(store), temperature, least)
    source = batch if prompt == 1 else {}
    processor = from_tokens(model, slow, prompt, source)
    expected = generated(model, batch, way, logits_processor=LogitsProcessorList([processor]))
    processor.tap.remove()  # type: ignore[attr-defined]

    wrapper = RetomatonWrapper(store, k=K, lmbda=LAMBDA, temperature=temperature, min_knns=least, max_knns=10**6)
    wrapper.break_into(model)
    try:
        measured = generated(model, batch, way)
    finally:
        wrapper.break_out()
    assert measured.sequences.tolist() == expected.sequences.tolist()
    for one, other in zip(measured.scores, expected.scores, strict=True):
        torch.testing.assert_close(one.log_softmax(dim=-1), other, atol=2e-3, rtol=1e-3)
    assert (0 if least == 1 else -1) < wrapper.statistics["knn_foss"] < 1


def test_pointers_that_stay_where_they_were_are_wrong(gpt2: Any, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would see if the beams were not followed."""
    wrapper = RetomatonWrapper(texts, k=K, lmbda=LAMBDA, temperature=5.0, max_knns=10**6)
    wrapper.break_into(gpt2)
    right = generated(gpt2, {"input_ids": PROMPTS}, "beams")
    monkeypatch.setattr(PointingCache, "_select", lambda self, rows: None)
    wrong = generated(gpt2, {"input_ids": PROMPTS}, "beams")
    wrapper.break_out()
    assert not torch.allclose(right.sequences_scores, wrong.sequences_scores)


@pytest.mark.parametrize("way", WAYS)
def test_knn_lm_generates(gpt2: Any, texts: Path, way: str) -> None:
    """Searching at every step is kNN-LM; with the cache as without."""
    several = []
    for wrapper in (
        KNNWrapper(texts, k=K, lmbda=LAMBDA),
        RetomatonWrapper(texts, k=K, lmbda=LAMBDA, no_pointer=True),
    ):
        wrapper.break_into(gpt2)
        several += [generated(gpt2, {"input_ids": PROMPTS}, way, use_cache=cached) for cached in (True, False)]
        wrapper.break_out()
        assert wrapper.statistics["knn_queries"] > 0
    for other in several[1:]:
        assert other.sequences.tolist() == several[0].sequences.tolist()


def test_lambda_1_generates_what_neighbours_say(gpt2: Any, texts: Path) -> None:
    """No hypothesis is impossible, so that there are as many as beams; impossible ones are never chosen."""
    wrapper = KNNWrapper(texts, k=2, lmbda=1)
    wrapper.break_into(gpt2)
    output = generated(gpt2, {"input_ids": PROMPTS}, "beams")
    wrapper.break_out()
    assert torch.isfinite(output.sequences_scores).all()
    assert (output.sequences_scores > -100).all()


def test_hypotheses_are_multiplied_selected_and_begun_anew(gpt2: Any, texts: Path) -> None:
    """The cache's own ways to do so take the neighbours along, and a piece of several tokens begins anew."""
    wrapper = RetomatonWrapper(texts, k=K, max_knns=10**6)
    wrapper.break_into(gpt2)
    with torch.no_grad():
        cache = gpt2(input_ids=PROMPTS, use_cache=True).cache
        assert isinstance(cache, PointingCache)
        kind, before = type(cache).__name__, cache.knn_candidates
        assert (kind, before is not None and before.ids.shape) == ("DynamicCache", (3, K))
        token = before.values[:, :1]
        alone = gpt2(input_ids=token, cache=cache).logits
        cache = gpt2(input_ids=PROMPTS, use_cache=True).cache
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.tensor([5, 1, 2]))
        several = gpt2(input_ids=token[[2, 0, 1]], cache=cache).logits
        torch.testing.assert_close(several, alone[[2, 0, 1]])
        cache.crop(-1)
        assert cache.knn_candidates is None
        searched = wrapper.statistics["knn_searched_steps"]
        gpt2(input_ids=PROMPTS[:, :2], cache=cache)
        assert wrapper.statistics["knn_searched_steps"] == searched + 3
        cache.reset()
        assert cache.knn_candidates is None
    wrapper.break_out()


def test_pointers_need_the_cache(gpt2: Any, texts: Path) -> None:
    wrapper = RetomatonWrapper(texts, k=K)
    wrapper.break_into(gpt2)
    with pytest.raises(ConfigurationError, match=r"follows pointers .* along the cache of the model"):
        generated(gpt2, {"input_ids": PROMPTS}, "greedy", use_cache=False)
    wrapper.break_out()
