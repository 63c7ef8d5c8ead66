"""The criterion of imitation on models that nobody has trained."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_knn.criterions import student_contexts
from fairseq_knn.criterions.imitation_config import ImitationConfig
from fairseq_knn.criterions.imitation_kd import ImitationCriterion, updates_of
from fairseq_knn.criterions.student_contexts import PLACE, POOL
from fairseq_knn.imitation.contexts import context_of
from fairseq_knn.imitation.drawing import student_sentences
from fairseq_knn.imitation.net_inputs import rows_of
from fairseq_knn.models.expert import Expert
from tests import models

EOS = 2
LENGTHS = [9, 8, 7, 5, 4, 3]  # of sources
TARGETS = [[4, 5, 6, 7, EOS], [8, 9, EOS], [10, 11, 12, 13, 14, 15, EOS], [16, EOS], [17, 18, 19, EOS], [5, 5, EOS]]

Sample = dict[str, Any]


def criterion(expert: nn.Module | None = None, pad: int = 1, **settings: Any) -> ImitationCriterion:
    """With an expert that reads text; 100 updates."""
    model = expert or models.untrained("transformer", seed=5, pad=pad)
    task: Any = SimpleNamespace(
        target_dictionary=models.dictionary(pad), expert_of=lambda config: Expert(model, "expert.pt")
    )
    given = {"sentence_avg": False, "max_update": 100, "max_epoch": 0, "update_freq": [1], "seed": 3}
    given["skip_remainder_batch"] = False
    return ImitationCriterion(ImitationConfig(**{**given, **settings}), task)


def constant(beta: float, **settings: Any) -> ImitationCriterion:
    return criterion(beta_schedule="constant", beta_value=beta, **settings)


def student(**settings: Any) -> nn.Module:
    return models.untrained("s2t_transformer", dropout=0.0, **settings)


def padded(rows: list[list[int]], pad: int, more: int = 0) -> Tensor:
    width = max(map(len, rows)) + more
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


def batch(rows: list[int] | None = None, pad: int = 1, more: int = 0, arch: str = "s2t_transformer") -> Sample:
    """Some sentences of a batch; *more* columns of padding."""
    rows = list(range(len(LENGTHS))) if rows is None else rows
    heard = rows_of(models.net_input(arch, LENGTHS), torch.tensor(rows), pad)
    read = [[4 + (3 * row + place) % 20 for place in range(length)] + [EOS] for row, length in enumerate(LENGTHS)]
    targets = [TARGETS[row] for row in rows]
    return {
        "net_input": {
            **heard,
            "prev_output_tokens": padded([[EOS, *target[:-1]] for target in targets], pad, more),
        },
        "target": padded(targets, pad, more),
        "ntokens": sum(map(len, targets)),
        "sentence": 100 + torch.tensor(rows),
        "expert_input": {
            "src_tokens": padded([read[row] for row in rows], pad, more),
            "src_lengths": torch.tensor([len(read[row]) for row in rows]),
        },
    }


def gradients(made: ImitationCriterion, model: nn.Module, sample: Sample) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss, _, _ = made(model, sample)
    loss.backward()
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return float(loss), found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys() != set()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("pad", [1, 0])
@pytest.mark.parametrize("output", ["argmax", "full", "topk"])
def test_columns_of_padding_change_nothing(output: str, pad: int) -> None:
    made, model = constant(1.0, pad=pad, kd_expert_output=output), student(pad=pad)
    one, other = (gradients(made, model, batch(pad=pad, more=more)) for more in (0, 4))
    assert one[0] == pytest.approx(other[0], abs=1e-4)
    assert_same(one[1], other[1], 1e-4)


@pytest.mark.parametrize("output", ["argmax", "full", "topk"])
def test_a_longer_sentence_in_the_batch_changes_nothing_for_others(output: str) -> None:
    """Of a student that reads: what one hears at the end of an utterance is also what it is padded with."""
    made, model = constant(1.0, kd_expert_output=output), models.untrained("transformer", dropout=0.0)
    parts = [made(model, batch(rows, arch="transformer"))[0] for rows in ([0, 1], [2], [3, 4, 5])]
    whole = made(model, batch(arch="transformer"))[0]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=2e-4)


def test_the_end_is_trained_once() -> None:
    _, size, logged = constant(1.0)(student(), batch())
    assert size == sum(map(len, TARGETS)) == logged["sample_size"] == logged["kd_positions"]


def test_what_the_loss_is_divided_by() -> None:
    model, sample = student(), batch()
    _, positions, _ = constant(0.0)(model, sample)
    _, target, _ = constant(0.0, kd_normalize="target")(model, sample)
    _, sentences, _ = constant(0.0, sentence_avg=True)(model, sample)
    assert target == sample["ntokens"]
    assert sentences == len(TARGETS)
    own = student_contexts.StudentContexts(constant(0.0).config, 1, EOS).of(model, sample, 0.0, 0)[0]
    assert positions == own.prefix.ne(1).sum() != target


def test_beta_one_never_decodes() -> None:
    model, sample = student(), batch()
    with mock.patch.object(student_contexts, "roll_out", side_effect=AssertionError):
        loss, _, logged = constant(1.0)(model, sample)
        for mixing in ("sentence", "loss"):
            assert float(constant(1.0, kd_mixing=mixing)(model, sample)[0]) == float(loss)
        assert float(criterion(kd_context="reference")(model, sample)[0]) == float(loss)  # word-KD
    assert logged["kd_student"] == 0


def test_beta_zero_always_continues_hypotheses() -> None:
    model, sample = student(), batch()
    made = student_contexts.StudentContexts(constant(0.0).config, 1, EOS)
    (context,) = made.of(model, sample, 0.0, 0)
    assert context.own.all()
    limit = max(map(len, TARGETS)) - 1
    hypotheses = student_contexts.roll_out(
        model, sample["net_input"], torch.full((len(TARGETS),), limit), eos=EOS, pad=1
    )
    for row, hypothesis in zip(context.prefix, hypotheses, strict=True):
        expected = context_of(hypothesis, EOS)
        assert expected[1] == hypothesis[0]  # the first token that was generated is kept
        assert row[row.ne(1)].tolist() == expected.tolist()
    assert torch.equal(criterion(kd_context="student")(model, sample)[0], constant(0.0)(model, sample)[0])


def test_only_sentences_that_were_drawn_are_decoded() -> None:
    model, sample = student(), batch()
    made = constant(0.5)
    for update in range(6):
        made.update = update
        drawn = student_sentences(sample["sentence"], 0.5, 3, update)
        with mock.patch.object(student_contexts, "roll_out", wraps=student_contexts.roll_out) as spy:
            _, _, logged = made(model, sample)
        assert logged["kd_student"] == drawn.sum()
        decoded = [call.args[1]["src_lengths"].tolist() for call in spy.call_args_list]
        assert decoded == ([sample["net_input"]["src_lengths"][drawn].tolist()] if drawn.any() else [])


def test_losses_are_mixed_by_weight() -> None:
    model, sample, beta = student(), batch(), 0.3
    reference, student_only = (gradients(constant(value), model, sample) for value in (1.0, 0.0))
    mixed = gradients(constant(beta, kd_mixing="loss"), model, sample)
    assert mixed[0] == pytest.approx(beta * reference[0] + (1 - beta) * student_only[0], rel=1e-5)
    expected = {name: beta * reference[1][name] + (1 - beta) * student_only[1][name] for name in reference[1]}
    assert_same(mixed[1], expected, 1e-4)
    sizes = [constant(value)(model, sample)[1] for value in (1.0, 0.0)]
    assert constant(beta, kd_mixing="loss")(model, sample)[1] == pytest.approx(beta * sizes[0] + (1 - beta) * sizes[1])


@pytest.mark.parametrize("given", [1, 2])
def test_given_beginnings_are_neither_decoded_nor_learned(given: int) -> None:
    """One of two tokens is more than the shortest target has."""
    model, sample = student(), batch()
    made = constant(0.0, ignore_prefix_size=given)
    contexts = student_contexts.StudentContexts(made.config, 1, EOS)
    (context,) = contexts.of(model, sample, 0.0, 0)
    reference = sample["net_input"]["prev_output_tokens"]
    assert torch.equal(context.prefix[:, 1 : 1 + given], reference[:, 1 : 1 + given])
    _, size, _ = made(model, sample)
    real = context.prefix.ne(1)
    assert size == real[:, given:].sum()
    assert bool((real.long().diff(dim=1) <= 0).all())  # no padding in the middle
    validated = made(model.eval(), sample)[2]
    assert validated["kd_positions"] == sum(len(target) - given for target in TARGETS)


def test_decoding_batches_together_gives_the_same_contexts() -> None:
    parts = [batch([0, 4, 5]), batch([1, 3]), batch([2])]
    for part, place in zip(parts, range(3), strict=True):
        part[PLACE] = place
    parts[0][POOL] = [{name: part[name] for name in ("net_input", "sentence")} for part in parts[1:]]
    model = student()
    for update in range(4):
        pooled = student_contexts.StudentContexts(constant(0.4).config, 1, EOS)
        with mock.patch.object(student_contexts, "roll_out", wraps=student_contexts.roll_out) as spy:
            together = [pooled.of(model, part, 0.4, update)[0] for part in parts]
        assert spy.call_count <= 1
        alone = student_contexts.StudentContexts(constant(0.4).config, 1, EOS)
        for part, found in zip(parts, together, strict=True):
            (expected,) = alone.of(model, {k: v for k, v in part.items() if k not in (PLACE, POOL)}, 0.4, update)
            assert torch.equal(found.own, expected.own)
            assert torch.equal(found.prefix, expected.prefix)


def test_a_pool_that_was_never_decoded_is_decoded_batch_by_batch() -> None:
    """The first batch ran out of memory."""
    made, sample = student_contexts.StudentContexts(constant(0.0).config, 1, EOS), batch()
    (expected,) = made.of(student(), sample, 0.0, 0)
    (found,) = made.of(student(), {**sample, PLACE: 1}, 0.0, 0)
    assert torch.equal(found.prefix, expected.prefix)


def test_sampled_contexts_depend_on_the_update_and_on_nothing_before() -> None:
    model, sample = student(), batch()
    made = student_contexts.StudentContexts(constant(0.0, kd_rollout_topk=5).config, 1, EOS)
    state = torch.random.get_rng_state()
    first, other, again = (made.of(model, sample, 0.0, update)[0].prefix for update in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropout_is_on_in_the_trained_pass_alone() -> None:
    model, sample, made = models.untrained("s2t_transformer", dropout=0.5), batch(), constant(0.0)
    with mock.patch.object(student_contexts, "roll_out", wraps=student_contexts.roll_out) as spy:
        one, other = made(model, sample)[0], made(model, sample)[0]
    assert float(one) != float(other)
    limits = spy.call_args.args[2]
    first, second = (student_contexts.roll_out(model, sample["net_input"], limits, eos=EOS, pad=1) for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_an_expert_that_is_the_student_teaches_nothing() -> None:
    """The gradient is zero, and both choose the same."""
    expert = student()
    model = student()
    made = constant(0.5, expert=expert, kd_expert_output="full", kd_expert_input="audio")
    made.update = 1  # of both kinds
    loss, _, logged = made(model, batch())
    loss.backward()
    trained = [each.grad for each in model.parameters() if each.grad is not None]
    assert max(float(each.abs().max()) for each in trained) < 1e-4 * float(loss)
    assert logged["kd_agreed"] == logged["kd_compared"] > 0


def test_agreement_is_that_after_references() -> None:
    model, sample = student(), batch()
    made = constant(0.5)
    made.update = 1
    _, _, logged = made(model, sample)
    own = student_sentences(sample["sentence"], 0.5, 3, 1).tolist()
    assert 0 < sum(own) < len(own)
    assert logged["kd_compared"] == sum(len(target) for target, is_own in zip(TARGETS, own, strict=True) if not is_own)
    assert "kd_agreement" not in reduced(constant(0.0)(model, sample)[2])


def reduced(logged: dict[str, Any], kind: Any = ImitationCriterion) -> dict[str, Any]:
    with metrics.aggregate() as found:
        kind.reduce_metrics([logged])
    return dict(found.get_smoothed_values())


@pytest.mark.parametrize("sentence_avg", [False, True])
def test_validation_is_stocks(sentence_avg: bool) -> None:
    model, sample = student().eval(), batch()
    made = constant(0.5, sentence_avg=sentence_avg, report_accuracy=True)
    task: Any = SimpleNamespace(target_dictionary=models.dictionary())
    plain = CrossEntropyCriterion(task, sentence_avg)
    smoothed = LabelSmoothedCrossEntropyCriterion(task, sentence_avg, 0.0, report_accuracy=True)
    loss, size, logged = made(model, sample)
    expected = plain(model, sample)
    assert torch.equal(loss, expected[0])
    assert size == expected[1]
    shown, stock = reduced(logged), reduced(expected[2], CrossEntropyCriterion)
    assert shown["loss"] == stock["loss"]
    also = reduced(smoothed(model, sample)[2], LabelSmoothedCrossEntropyCriterion)
    for name in ("nll_loss", "ppl", "accuracy"):
        assert shown[name] == also[name], name
    assert "kd_student_share" not in shown


def test_the_expert_is_no_part_of_it() -> None:
    expert = models.untrained("transformer", seed=5)
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    made, model = constant(0.5, expert=expert), student()
    assert not list(made.parameters())
    assert not made.state_dict()
    assert not list(made.children())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for update in range(5):
        made.train()
        made.update = update
        made(model, batch())[0].backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in expert.state_dict().items())
    assert not any(module.training for module in expert.modules())
    assert not any(each.requires_grad or each.grad is not None for each in expert.parameters())


def test_beta_of_an_update() -> None:
    made = criterion()
    found = []
    for made.update in (0, 50, 100, 130):
        found.append(made.beta)
    assert found == pytest.approx([1, 0.0707106781, 0.005, 0.005])


@pytest.mark.parametrize(
    ("batches", "epochs", "update_freq", "expected"),
    [(10, 3, [1], 30), (10, 3, [4], 9), (10, 3, [4, 1], 23), (10, 2, [4, 2, 1], 8), (1, 5, [8], 5)],
)
def test_updates_in_epochs(batches: int, epochs: int, update_freq: list[int], expected: int) -> None:
    assert updates_of(batches, epochs, update_freq) == expected
    made = criterion(max_update=0, max_epoch=epochs, update_freq=update_freq)
    made.plan(batches)
    assert made.updates == expected


def test_updates_in_epochs_whose_remainder_is_left_out() -> None:
    assert updates_of(10, 3, [4], skip_remainder=True) == 6
    made = criterion(max_update=0, max_epoch=3, update_freq=[4], skip_remainder_batch=True)
    made.plan(10)
    assert made.updates == 6
