"""Scores of sentence pairs: equal at first, their pair's alone, and what each actor can and cannot see."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors import (
    INSTANCE_ACTORS,
    InstanceActor,
    InstanceActorSettings,
    make_instance_actor,
)

SOURCES, TARGETS, PADDING, D = 11, 13, 1, 8
BOTH = sorted(INSTANCE_ACTORS)


def made(kind: str, **settings: object) -> InstanceActor:
    return make_instance_actor(kind, InstanceActorSettings(SOURCES, TARGETS, PADDING, **{"embed_dim": D, **settings}))


def shaken(actor: InstanceActor) -> InstanceActor:
    """The same with an output layer that tells pairs apart."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in actor.output.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return actor


def pairs(count: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randint(2, SOURCES, (1 + i % 4,), generator=generator),
            torch.randint(2, TARGETS, (1 + (2 * i) % 5,), generator=generator),
        )
        for i in range(count)
    ]


def batch(sentences: list[Tensor], length: int = 0, left: bool = False) -> Tensor:
    length = max(length, *(len(sentence) for sentence in sentences))
    rows = []
    for sentence in sentences:
        padding = sentence.new_full((length - len(sentence),), PADDING)
        rows.append(torch.cat([padding, sentence] if left else [sentence, padding]))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("score_type", "first"), [("sigmoid", 0.5), ("exp", 1.0)])
def test_at_first_all_scores_are_equal(kind: str, score_type: str, first: float) -> None:
    source, target = (batch(list(side)) for side in zip(*pairs(), strict=True))
    scores = made(kind, score_type=score_type)(source, target)
    assert scores.dtype == torch.float32
    assert scores.tolist() == [first] * 6


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("training", [False, True])
def test_a_score_is_its_pairs_own(kind: str, training: bool) -> None:
    """Whatever else is in the batch, how wide it is, and at which end the padding is."""
    actor = shaken(made(kind)).train(training)
    with torch.no_grad():
        alone = torch.cat([actor(s.unsqueeze(0), t.unsqueeze(0)) for s, t in pairs()])
        assert len(set(alone.tolist())) == 6
        sources, targets = (list(side) for side in zip(*pairs(), strict=True))
        for more, left_source, left_target in [
            (0, False, False),
            (9, True, False),
            (12, False, True),
            (17, True, True),
        ]:
            together = actor(batch(sources, more, left_source), batch(targets, 2 * more, left_target))
            torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_without_any_token_a_sentence_has_a_score(kind: str) -> None:
    source = torch.tensor([[2, 3], [PADDING, PADDING]])
    target = torch.tensor([[PADDING], [4]])
    assert shaken(made(kind))(source, target).isfinite().all()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("score_type", ["sigmoid", "exp"])
def test_logits_order_pairs_as_scores_do(kind: str, score_type: str) -> None:
    actor = shaken(made(kind, score_type=score_type))
    source, target = (batch(list(side)) for side in zip(*pairs(), strict=True))
    scores, logits = actor(source, target), actor.logits(source, target)
    assert torch.equal(scores.argsort(), logits.argsort())
    torch.testing.assert_close(scores, logits.exp() if score_type == "exp" else logits.sigmoid())


def test_ave_emb_equals_the_loop() -> None:
    actor = shaken(made("ave_emb", score_type="exp"))
    tables = [actor.get_submodule(side).weight.detach().double().numpy() for side in ("source", "target")]
    weight, bias = (p.detach().double().numpy() for p in actor.output.parameters())
    for source, target in pairs():
        sums = [np.zeros(D), np.zeros(D)]
        for side, sentence in enumerate((source, target)):
            for token in sentence.tolist():
                sums[side] += tables[side][token] / len(sentence)
        expected = np.exp(weight[0] @ np.concatenate(sums) + bias[0])
        got = actor(source.unsqueeze(0), target.unsqueeze(0)).item()
        assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", BOTH)
def test_only_the_transformer_compares_source_and_target(kind: str) -> None:
    """Exchanging the targets of two pairs changes nothing in the sum of the two of ave_emb's logits."""
    actor = shaken(made(kind))
    (source, target), (other_source, other_target) = ((s.unsqueeze(0), t.unsqueeze(0)) for s, t in pairs()[2:4])
    own = actor.logits(source, target) + actor.logits(other_source, other_target)
    exchanged = actor.logits(source, other_target) + actor.logits(other_source, target)
    assert torch.allclose(own, exchanged, rtol=0, atol=1e-5) == (kind == "ave_emb")


@pytest.mark.parametrize("kind", BOTH)
def test_only_the_transformer_sees_the_order_of_words(kind: str) -> None:
    actor = shaken(made(kind))
    source, target = torch.tensor([[2, 5, 7]]), torch.tensor([[3, 4, 9]])
    for changed in [(source.flip(1), target), (source, target.flip(1))]:
        assert torch.allclose(actor(*changed), actor(source, target), rtol=0, atol=1e-6) == (kind == "ave_emb")


@pytest.mark.parametrize("kind", BOTH)
def test_gradients(kind: str) -> None:
    """Of the scores with respect to every parameter, against finite differences in float64."""
    actor = shaken(made(kind, embed_dim=4)).double()
    source, target = (batch(list(side)) for side in zip(*pairs(3), strict=True))
    names = [name for name, _ in actor.named_parameters()]
    parameters = tuple(actor.parameters())

    def scores(*values: Tensor) -> Tensor:
        return torch.func.functional_call(actor, dict(zip(names, values, strict=True)), (source, target))

    assert torch.autograd.gradcheck(scores, parameters, fast_mode=True)


@pytest.mark.parametrize("kind", BOTH)
def test_fixed_embeddings_are_not_trained_but_saved(kind: str) -> None:
    actor = shaken(made(kind, train_embeddings=False))
    fixed = {name for name, parameter in actor.named_parameters() if not parameter.requires_grad}
    assert fixed == {"source.weight", "target.weight"}
    assert fixed <= set(actor.state_dict())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("as_modules", [True, False])
def test_the_models_embeddings_are_read_only(kind: str, dtype: torch.dtype, as_modules: bool) -> None:
    width = 12  # of the model; not the actor's
    modules = nn.Embedding(SOURCES, width).to(dtype), nn.Embedding(TARGETS, width).to(dtype)
    given = modules if as_modules else tuple(module.weight for module in modules)
    actor = shaken(made(kind, model_embeddings=given))
    ids = {id(module.weight) for module in modules}
    assert not any(id(parameter) in ids for parameter in actor.parameters())
    assert not any(name.startswith(("source.", "target.")) for name in actor.state_dict())

    source, target = (batch(list(side)) for side in zip(*pairs(), strict=True))
    before = actor(source, target)
    assert before.dtype == torch.float32
    before.sum().backward()
    assert all(module.weight.grad is None for module in modules)
    assert actor.output.weight.grad is not None
    with torch.no_grad():
        for module in modules:
            module.weight += torch.randn(module.weight.shape)
    # The model goes on being trained; the actor sees what it is now.
    assert not torch.allclose(actor(source, target), before)


@pytest.mark.parametrize("kind", BOTH)
def test_the_seed_decides_and_others_generators_are_left_alone(kind: str) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, other = made(kind, seed=1), made(kind, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = made(kind, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.get_parameter("source.weight"), other.get_parameter("source.weight"))


def test_layers_of_the_transformer_start_differently() -> None:
    first, second = made("transformer").get_submodule("encoder").layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


@pytest.mark.parametrize(
    ("kind", "settings", "flag"),
    [
        ("lan", {}, "--data-actor is 'lan'"),
        ("ave_emb", {"score_type": "softmax"}, "--out-score-type"),
        ("ave_emb", {"embed_dim": 0}, "--data-actor-embed-dim"),
        ("transformer", {"embed_dim": 10}, "--data-actor-embed-dim"),
        ("ave_emb", {"model_embeddings": (nn.Linear(2, 2), nn.Linear(2, 2))}, "--data-actor-model-embed"),
    ],
)
def test_what_cannot_be_made_is_told(kind: str, settings: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        made(kind, **settings)
