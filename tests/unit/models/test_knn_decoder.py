"""An augmented model is the stock model until neighbours have a say, and then the mixture everywhere."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from fairseq.sequence_scorer import SequenceScorer
from torch import Tensor, nn

from fairseq_knn.combiners import VanillaCombiner
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.hidden_state import HiddenStateTap
from fairseq_knn.models.knn_decoder import KnnDecoder, augment, restore, take_fingerprint
from fairseq_knn.retrieval import Retriever
from fairseq_knn.storage.digest import parameters_digest
from tests.support import write_datastore
from tests.unit.combiners import reference
from tests.unit.models import tiny
from tests.unit.models.tiny import BLOCK_MODELS, DICTIONARY, MODELS

FEW = ["transformer pre-norm tied", "lightconv untied", "lstm tied", "fconv untied"]


def log_probs(model: Any, **shape: int) -> Tensor:
    result: Tensor = model.get_normalized_probs(tiny.forward(model, **shape), log_probs=True)
    return result


def at_target(model: Any, target: Tensor) -> Tensor:
    """What a program that scores gets, (B, T)."""
    scored = {**tiny.sample(), "target": target}
    probs: Tensor = model.get_normalized_probs(tiny.forward(model), log_probs=True, sample=scored)
    return probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def states(model: Any, kind: str) -> Tensor:
    tap = HiddenStateTap(model.decoder, kind)
    with tap.capture() as captured:
        output = tiny.forward(model)[0]
    return (output if tap.is_output else captured[-1]).detach()


def augmentation(model: Any, path: Path, kind: str = "decoder_output", weight: float = 0.6) -> Augmentation:
    """Neighbours near the model's own states, with random tokens."""
    own = states(model, kind).flatten(0, 1).numpy()
    rng = np.random.default_rng(0)
    keys = np.concatenate([own + 0.1 * rng.normal(size=own.shape) for _ in range(3)])
    values = rng.integers(4, tiny.V, len(keys))
    store = write_datastore(path, keys, values, vocabulary_size=tiny.V)
    retriever = Retriever(store, k=4, backend="torch", device="cpu")
    return Augmentation(VanillaCombiner(weight, temperature=1.0), retriever)


def augmented(name: str, path: Path, kind: str = "decoder_output", **options: Any) -> Any:
    model = tiny.build(name)
    own = augmentation(model, path, kind, **options)
    augment(model, kind, lambda: own)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_without_neighbours_nothing_changes(name: str) -> None:
    model = tiny.build(name)
    parameters = {key: id(value) for key, value in model.named_parameters()}
    content = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [key for key, _ in model.named_modules()]
    with torch.no_grad():
        before = log_probs(model), model.get_normalized_probs(tiny.forward(model), log_probs=False)
        stock = tiny.forward(model)[1]
    stock_class = type(model.decoder)
    augment(model, "decoder_output", lambda: None)
    assert isinstance(model.decoder, stock_class)
    assert isinstance(model.decoder, KnnDecoder)
    assert {key: id(value) for key, value in model.named_parameters()} == parameters
    assert [key for key, _ in model.named_modules()] == modules
    assert list(model.state_dict()) == list(content)
    assert all(torch.equal(value, content[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        after = log_probs(model), model.get_normalized_probs(tiny.forward(model), log_probs=False)
        extra = tiny.forward(model)[1]
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert "attn" in extra
    if isinstance(stock, dict):
        assert set(stock) < set(extra)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["decoder_output", "ffn_input", "ffn_output"])
def test_mixture_equals_the_loop(tmp_path: Path, name: str, kind: str) -> None:
    if kind != "decoder_output" and name not in BLOCK_MODELS:
        return
    model = tiny.build(name)
    with torch.no_grad():
        plain = log_probs(model)
        query = states(model, kind)
        own = augmentation(model, tmp_path, kind)
        augment(model, kind, lambda: own)
        mixed = log_probs(model)
        probs = model.get_normalized_probs(tiny.forward(model), log_probs=False)
    padding = tiny.sample()["net_input"]["prev_output_tokens"].eq(DICTIONARY.pad())
    found = own.retriever.retrieve(query, ~padding).select(torch.arange(15))
    expected = reference.vanilla(plain.view(15, -1), found, 0.6, 1.0)
    np.testing.assert_allclose(mixed.view(15, -1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(probs, mixed.exp())
    assert padding.any()
    assert torch.equal(mixed[padding], plain[padding])


@pytest.mark.parametrize("name", [*MODELS, "adaptive softmax"])
def test_scoring_mixes_the_targets_alone_and_equally(tmp_path: Path, name: str) -> None:
    model = with_adaptive_softmax() if name == "adaptive softmax" else tiny.build(name)
    target = tiny.sample()["target"]
    real = target != DICTIONARY.pad()
    with torch.no_grad():
        own = augmentation(model, tmp_path)
        augment(model, "decoder_output", lambda: own)
        # Padded inputs have no neighbours, and without a target it is the inputs that tell what is padding.
        whole = log_probs(model).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(at_target(model, target)[real], whole[real])
        alone = model.decoder.knn_model_log_probs(tiny.forward(model), tiny.sample())
        assert not torch.equal(alone.gather(-1, target.unsqueeze(-1)).squeeze(-1)[real], whole[real])


def test_adaptive_softmax_with_a_threshold(tmp_path: Path) -> None:
    """With a target, stock fills in the columns of its cluster alone: others look like probability 1."""
    model = with_adaptive_softmax()
    target = tiny.sample()["target"]
    real = target != DICTIONARY.pad()
    with torch.no_grad():
        own = augmentation(model, tmp_path)
        augment(model, "decoder_output", lambda: None)
        highest = log_probs(model).amax(-1).exp()
        skipping = Augmentation(own.combiner, own.retriever, float(highest[real].median()))
        augment(model, "decoder_output", lambda: skipping)
        at_target(model, target)
    assert 0 < skipping.skipped < skipping.positions == int(real.sum())


@pytest.mark.parametrize("name", MODELS)
def test_neighbours_alone_reproduce_the_sentences_they_come_from(tmp_path: Path, name: str) -> None:
    """k = 1 and lambda = 1, on a datastore of the very batch."""
    model, sample = tiny.build(name), tiny.sample()
    target = sample["target"]
    stored = target != DICTIONARY.pad()
    keys = states(model, "decoder_output")[stored].numpy()
    store = write_datastore(tmp_path, keys, target[stored].numpy(), vocabulary_size=tiny.V)
    own = Augmentation(VanillaCombiner(weight=1.0), Retriever(store, k=1, backend="torch", device="cpu"))
    augment(model, "decoder_output", lambda: own)
    with torch.no_grad():
        plain = model.decoder.knn_model_log_probs(tiny.forward(model))[stored]
        searched = log_probs(model)[stored]
        scored = torch.stack(
            [at_target(model, torch.where(stored, token, target))[stored] for token in range(tiny.V)], 1
        )
    expected = torch.full_like(searched, -torch.inf)
    assert torch.equal(scored, expected.scatter(1, target[stored].unsqueeze(1), 0.0))
    # Search has to be able to end a hypothesis anywhere: the model's own choices come far behind.
    assert torch.equal(searched == 0, scored == 0)
    torch.testing.assert_close(searched[searched < 0] + 1e4, plain[searched < 0], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", FEW)
def test_searched_once_however_often_probabilities_are_asked_for(tmp_path: Path, name: str) -> None:
    model = augmented(name, tmp_path)
    statistics = model.decoder.knn_augmentation().retriever.statistics
    with torch.no_grad():
        output = tiny.forward(model)
        first = model.get_normalized_probs(output, log_probs=True)
        assert torch.equal(model.get_normalized_probs(output, log_probs=True), first)
    assert statistics.searches == 1
    assert statistics.requested == 15
    assert statistics.queries == tiny.sample()["ntokens"]


@pytest.mark.parametrize("name", FEW)
def test_no_search_where_the_model_is_sure(tmp_path: Path, name: str) -> None:
    model = augmented(name, tmp_path)
    own = model.decoder.knn_augmentation()
    with torch.no_grad():
        everywhere = log_probs(model)
        plain = model.decoder.knn_model_log_probs(tiny.forward(model))
        padding = tiny.sample()["net_input"]["prev_output_tokens"].eq(DICTIONARY.pad())
        highest = plain.amax(-1).exp()
        threshold = float(highest[~padding].median())
        own.retriever.statistics.queries = 0
        skipping = Augmentation(own.combiner, own.retriever, threshold)
        augment(model, "decoder_output", lambda: skipping)
        mixed = log_probs(model)
    sure = highest >= threshold
    assert torch.equal(mixed[sure], plain[sure])
    assert torch.equal(mixed[~sure], everywhere[~sure])
    assert skipping.positions == int((~padding).sum())
    assert skipping.skipped == int((sure & ~padding).sum())
    assert 0 < skipping.skipped < skipping.positions
    assert own.retriever.statistics.queries == skipping.positions - skipping.skipped


def test_a_threshold_of_one_skips_nothing(tmp_path: Path) -> None:
    model = augmented(FEW[0], tmp_path)
    own = model.decoder.knn_augmentation()
    with torch.no_grad():
        everywhere = log_probs(model)
        careful = Augmentation(own.combiner, own.retriever, 1.0)
        augment(model, "decoder_output", lambda: careful)
        assert torch.equal(log_probs(model), everywhere)
    assert careful.skipped == 0


def test_restored_model_is_the_stock_one(tmp_path: Path) -> None:
    model = tiny.build(FEW[0])
    stock, attributes = type(model.decoder), set(vars(model.decoder))
    with torch.no_grad():
        before = log_probs(model)
        own = augmentation(model, tmp_path)
        for _ in range(2):
            augment(model, "decoder_output", lambda: own)
            take_fingerprint(model)
            assert model.decoder.knn_fingerprint == parameters_digest(model.named_parameters())
            assert not torch.equal(log_probs(model), before)
            restore(model)
            assert type(model.decoder) is stock
            assert set(vars(model.decoder)) == attributes
            assert not model._load_state_dict_post_hooks
            assert torch.equal(log_probs(model), before)
        restore(model)  # nothing to undo


def generate(model: Any, **options: Any) -> list[list[dict[str, Any]]]:
    generator = SequenceGenerator([model], DICTIONARY, beam_size=3, max_len_b=8, **options)
    hypotheses: list[list[dict[str, Any]]] = generator.generate([model], tiny.sample())
    return hypotheses


def score(model: Any, tokens: list[Tensor], **options: Any) -> list[Tensor]:
    """Positional scores of translations of :func:`tiny.sample`."""
    sample = tiny.sample()
    longest = max(map(len, tokens))
    target = torch.full((len(tokens), longest), DICTIONARY.pad())
    for row, words in enumerate(tokens):
        target[row, : len(words)] = words
    previous = target.roll(1, dims=1)
    previous[:, 0] = DICTIONARY.eos()
    previous[target == DICTIONARY.pad()] = DICTIONARY.pad()
    sample["target"], sample["net_input"]["prev_output_tokens"] = target, previous
    hypotheses = SequenceScorer(DICTIONARY, **options).generate([model], sample)
    return [hypothesis["positional_scores"] for (hypothesis,) in hypotheses]


@pytest.mark.parametrize("name", MODELS)
def test_beam_search_without_neighbours_is_stock(name: str) -> None:
    model = tiny.build(name)
    before = generate(model)
    augment(model, "decoder_output", lambda: None)
    for one, other in zip(before, generate(model), strict=True):
        for left, right in zip(one, other, strict=True):
            assert left["tokens"].tolist() == right["tokens"].tolist()
            assert torch.equal(left["positional_scores"], right["positional_scores"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_beam_search_finds_what_scoring_confirms(tmp_path: Path, name: str, temperature: float) -> None:
    """Step by step, all at once, and in chunks of the flattened positions."""
    model = augmented(name, tmp_path)
    hypotheses = [best[0] for best in generate(model, temperature=temperature)]
    if temperature != 1:
        assert all(h["positional_scores"].isfinite().all() for h in hypotheses)
        return
    tokens = [hypothesis["tokens"] for hypothesis in hypotheses]
    found = [hypothesis["positional_scores"] for hypothesis in hypotheses]
    for softmax_batch in (None, 1, 2, 7, 1000):
        for one, other in zip(score(model, tokens, softmax_batch=softmax_batch), found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_ensemble_with_datastores_of_their_own(tmp_path: Path) -> None:
    one = augmented("transformer pre-norm tied", tmp_path / "one")
    other = augmented("lstm tied", tmp_path / "other")
    generator = SequenceGenerator([one, other], DICTIONARY, beam_size=2, max_len_b=5)
    for best, *_ in generator.generate([one, other], tiny.sample()):
        assert best["positional_scores"].isfinite().all()
    assert all(m.decoder.knn_augmentation().retriever.statistics.searches for m in (one, other))


@pytest.mark.parametrize("name", FEW)
def test_gradients_flow_through_the_mixture(tmp_path: Path, name: str) -> None:
    model = augmented(name, tmp_path).train()
    target = tiny.sample()["target"]
    loss = nn.functional.nll_loss(log_probs(model).flatten(0, 1), target.flatten(), ignore_index=DICTIONARY.pad())
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_features_only_are_the_stock_ones(tmp_path: Path) -> None:
    model = augmented("transformer pre-norm tied", tmp_path)
    plain = tiny.build("transformer pre-norm tied")
    with torch.no_grad():
        got, extra = model(**tiny.sample()["net_input"], features_only=True)
        assert torch.equal(got, plain(**tiny.sample()["net_input"], features_only=True)[0])
    assert set(extra) == {"attn", "inner_states"}


@pytest.mark.parametrize("name", FEW[:-1])  # stock fconv cannot be copied
def test_copy_consults_the_datastore_with_its_own_states(tmp_path: Path, name: str) -> None:
    model = augmented(name, tmp_path)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        expected = log_probs(model)
        assert torch.equal(log_probs(clone), expected)
        for parameter in model.parameters():  # the original goes on training
            parameter.zero_()
        assert torch.equal(log_probs(clone), expected)
        assert not torch.equal(log_probs(model), expected)


def test_copy_takes_its_own_fingerprint() -> None:
    model = tiny.build("lstm tied")
    augment(model, "decoder_output", lambda: None)
    assert model.decoder.knn_fingerprint is None
    clone = copy.deepcopy(model)
    clone.load_state_dict(tiny.build("lstm tied", seed=1).state_dict())
    assert clone.decoder.knn_fingerprint == parameters_digest(clone.named_parameters())
    assert model.decoder.knn_fingerprint is None


@pytest.mark.parametrize("name", FEW)
def test_augmenting_again_replaces_the_settings(tmp_path: Path, name: str) -> None:
    model = augmented(name, tmp_path)
    one_class = type(model.decoder)
    with torch.no_grad():
        plain = log_probs(tiny.build(name))
        augment(model, "decoder_output", lambda: None)
        assert torch.equal(log_probs(model), plain)
    assert type(model.decoder) is one_class
    model.load_state_dict(model.state_dict())
    assert model.decoder.knn_fingerprint == parameters_digest(model.named_parameters())


def test_models_of_one_class_have_decoders_of_one_class() -> None:
    models = [tiny.build(name) for name in ("lstm tied", "lstm untied", "fconv tied")]
    for model in models:
        augment(model, "decoder_output", lambda: None)
    assert type(models[0].decoder) is type(models[1].decoder) is not type(models[2].decoder)
    assert type(models[0].decoder).__name__ == "KnnLSTMDecoder"


def test_recorded_states() -> None:
    model = tiny.build("transformer pre-norm tied")
    expected = states(model, "ffn_input")
    augment(model, "ffn_input", lambda: None)
    with torch.no_grad():
        with model.decoder.knn_record() as recorded:
            tiny.forward(model)
            tiny.forward(model)
        tiny.forward(model)
    assert len(recorded.states) == 2
    assert torch.equal(recorded.states[0], expected)


def without_decoder() -> nn.Module:
    return nn.Linear(1, 1)


def with_adaptive_softmax() -> nn.Module:
    model: nn.Module = tiny.build(
        "transformer pre-norm untied", adaptive_softmax_cutoff="5,10", tie_adaptive_weights=False
    )
    return model


def without_blocks() -> nn.Module:
    model: nn.Module = tiny.build("lstm tied")
    return model


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (without_decoder, "Linear has no decoder, .*use an encoder-decoder model"),
        (without_blocks, "LSTMDecoder has no hidden state 'ffn_input'"),
    ],
)
def test_models_that_cannot_be_augmented_stay_as_they_are(build: Callable[[], nn.Module], told: str) -> None:
    model = build()
    decoder = type(getattr(model, "decoder", None))
    with pytest.raises(ConfigurationError, match=told):
        augment(model, "ffn_input", lambda: None)
    assert type(getattr(model, "decoder", None)) is decoder
