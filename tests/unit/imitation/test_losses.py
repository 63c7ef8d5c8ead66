"""The cross entropy between expert and student, its gradient, and what it costs to ask."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fairseq_knn.imitation import losses
from fairseq_knn.imitation.beliefs import Belief, DenseBelief, SparseBelief, top_k
from fairseq_knn.imitation.losses import ImitationLoss, imitation_loss

EXPERT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
STUDENT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
FULL, OPTIMAL, KL, ENTROPY = 2.3062182531, 2.5062182531, 0.6064539757, 1.6997642774

Believe = Callable[[Tensor], Belief]


def full(expert: Tensor) -> Believe:
    return lambda rows: DenseBelief(expert[rows])


def likeliest(expert: Tensor, k: int) -> Believe:
    return lambda rows: top_k(expert[rows], k)


def everything(logits: Tensor) -> Tensor:
    return torch.arange(len(logits))


def random_case(rows: int = 9, vocabulary: int = 7) -> tuple[Tensor, Tensor]:
    """Logits of a student and probabilities of an expert, float64."""
    generator = torch.Generator().manual_seed(5)
    draw = torch.randn(2, rows, vocabulary, generator=generator, dtype=torch.float64)
    return 2 * draw[0], (2 * draw[1]).softmax(dim=1)


def graded(logits: Tensor, rows: Tensor, believe: Believe, scale: float = 1.0) -> tuple[ImitationLoss, Tensor]:
    """Loss and gradient of the logits."""
    leaf = logits.clone().requires_grad_()
    result = imitation_loss(leaf, rows, believe)
    (gradient,) = torch.autograd.grad(result.loss * scale, leaf)
    return result, gradient


def naive(logits: Tensor, expert: Tensor) -> Tensor:
    return -(expert * logits.log_softmax(dim=1)).sum()


def test_golden_full() -> None:
    result, gradient = graded(STUDENT, everything(STUDENT), full(EXPERT))
    assert result.loss.item() == pytest.approx(FULL, abs=1e-9)
    assert gradient[0].tolist() == pytest.approx([-0.366667, 0.133333, 0.233333], abs=5e-7)
    assert gradient[1].tolist() == pytest.approx([-0.009969, -0.355272, 0.365241], abs=5e-7)
    torch.testing.assert_close(gradient, STUDENT.softmax(dim=1) - EXPERT, rtol=0, atol=1e-12)
    assert result.student_choice.tolist() == [0, 2]
    assert result.expert_choice.tolist() == [0, 1]


def test_golden_optimal() -> None:
    result, gradient = graded(STUDENT, everything(STUDENT), likeliest(EXPERT, 1))
    assert result.loss.item() == pytest.approx(OPTIMAL, abs=1e-9)
    torch.testing.assert_close(gradient, STUDENT.softmax(dim=1) - torch.eye(3)[:2], rtol=0, atol=1e-12)
    assert result.expert_choice.tolist() == [0, 1]


def test_golden_divergence() -> None:
    entropy = -(EXPERT * EXPERT.log()).sum().item()
    assert entropy == pytest.approx(ENTROPY, abs=1e-9)
    loss = imitation_loss(STUDENT, everything(STUDENT), full(EXPERT)).loss.item()
    assert loss - entropy == pytest.approx(KL, abs=1e-9)


def test_divergence_is_zero_only_for_equals() -> None:
    logits, expert = random_case()
    rows = everything(logits)
    entropy = -(expert * expert.log()).sum()
    assert imitation_loss(logits, rows, full(expert)).loss > entropy
    result, gradient = graded(expert.log() + 5, rows, full(expert))
    assert result.loss.item() == pytest.approx(entropy.item(), rel=1e-12)
    assert gradient.abs().max() < 1e-14
    assert torch.equal(result.student_choice, result.expert_choice)


@pytest.mark.parametrize("chunk", [7, 15, 1 << 23])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_gradient_is_that_of_the_formula(chunk: int, k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_LOGITS", chunk)
    logits, expert = random_case()
    believe = full(expert) if k is None else likeliest(expert, k)
    rows = torch.tensor([4, 0, 8, 1])
    torch.autograd.gradcheck(lambda z: imitation_loss(z, rows, believe).loss, [logits.requires_grad_()])
    belief = believe(rows)
    if isinstance(belief, SparseBelief):
        expected = torch.zeros(4, 7, dtype=torch.float64).scatter_(1, belief.tokens, belief.probabilities)
    else:
        expected = belief.probabilities
    theirs = logits.detach().clone().requires_grad_()
    loss = naive(theirs[rows], expected)
    result, gradient = graded(logits.detach(), rows, believe, scale=0.25)
    torch.testing.assert_close(result.loss, loss.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss * 0.25, theirs)[0], rtol=0, atol=1e-12)
    assert torch.equal(result.student_choice, logits[rows].argmax(dim=1))
    assert torch.equal(result.expert_choice, expert[rows].argmax(dim=1))


def test_a_belief_that_does_not_sum_to_one_has_its_own_gradient() -> None:
    """Probabilities in half precision do not."""
    logits, expert = random_case()
    for believe in (full(expert * 0.9), lambda rows: SparseBelief(torch.tensor([[3, 1]]), torch.tensor([[0.5, 0.3]]))):
        rows = torch.tensor([2])
        torch.autograd.gradcheck(lambda z, b=believe, r=rows: imitation_loss(z, r, b).loss, [logits.requires_grad_()])


@pytest.mark.parametrize("k", [None, 2])
def test_size_of_the_chunks_changes_nothing(k: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, expert = (tensor.float() for tensor in random_case(rows=50, vocabulary=13))
    believe = full(expert) if k is None else likeliest(expert, k)
    rows = torch.arange(49, -1, -1)[::2].contiguous()
    whole, gradient = graded(logits, rows, believe)
    for chunk in (1, 13, 40, 100):
        monkeypatch.setattr(losses, "_CHUNK_LOGITS", chunk)
        result, same = graded(logits, rows, believe)
        torch.testing.assert_close(result.loss, whole.loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(same, gradient, rtol=1e-6, atol=1e-7)
        assert torch.equal(result.student_choice, whole.student_choice)
        assert torch.equal(result.expert_choice, whole.expert_choice)


@pytest.mark.parametrize(
    ("dtype", "of_loss", "of_gradient"),
    [
        (torch.float32, 1e-6, 1e-6),
        (torch.float16, 1e-3, 1e-3),
        (torch.bfloat16, 1e-2, 8e-3),  # eight bits of mantissa
    ],
)
def test_types_agree(dtype: torch.dtype, of_loss: float, of_gradient: float) -> None:
    logits, expert = random_case(rows=40, vocabulary=30)
    rows = everything(logits)
    exact, exact_gradient = graded(logits, rows, full(expert))
    result, gradient = graded(logits.to(dtype), rows, full(expert.to(dtype)))
    assert result.loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert result.loss.item() == pytest.approx(exact.loss.item(), rel=of_loss)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=of_gradient)


def test_half_precision_is_rounded_after_scaling() -> None:
    """A probability of 1e-9 is nothing in float16, but times a loss scale of 2 ** 15 it is not."""
    logits = torch.tensor([[0.0, 20.0, -0.7]], dtype=torch.float16)
    _, gradient = graded(logits, torch.tensor([0]), likeliest(torch.tensor([[0.0, 1.0, 0.0]]), 1), scale=2.0**15)
    assert gradient[0, 0].item() == pytest.approx(math.exp(-20) * 2**15, rel=2e-3)
    assert gradient[0, 2].item() == pytest.approx(math.exp(-20.7) * 2**15, rel=5e-3)


def test_one_hot_expert_is_the_likelihood_of_its_token() -> None:
    logits, expert = random_case()
    rows, tokens = everything(logits), expert.argmax(dim=1)
    one_hot = torch.eye(7, dtype=torch.float64)[tokens]
    loss = cross_entropy(logits, tokens, reduction="sum")
    for believe in (full(one_hot), likeliest(one_hot, 1), likeliest(one_hot, 4), likeliest(expert, 1)):
        result, gradient = graded(logits, rows, believe)
        torch.testing.assert_close(result.loss, loss, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradient, logits.softmax(dim=1) - one_hot, rtol=0, atol=1e-12)


def test_all_tokens_are_the_full_belief() -> None:
    logits, expert = random_case()
    rows = everything(logits)
    (one, one_gradient), (other, other_gradient) = (
        graded(logits, rows, b) for b in (full(expert), likeliest(expert, 7))
    )
    torch.testing.assert_close(one.loss, other.loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(one_gradient, other_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_certain_expert_counts(sparse: bool) -> None:
    """A probability of exactly 1 is not mistaken for the padding, whose id often is 1."""
    certain = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    believe = likeliest(certain, 1) if sparse else full(certain)
    result, gradient = graded(STUDENT[1:], torch.tensor([0]), believe)
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-2)), abs=1e-12)
    assert gradient[0, 2] < -0.3


@pytest.mark.parametrize("k", [None, 2])
def test_other_positions_do_not_enter(k: int | None) -> None:
    """So neither padding nor what else is in the batch changes what a sentence contributes."""
    logits, expert = random_case()
    believe = full(expert) if k is None else likeliest(expert, k)
    rows = torch.tensor([0, 1, 4])
    result, gradient = graded(logits, rows, believe)
    others = torch.tensor([row for row in range(9) if row not in rows])
    assert not gradient[others].any()
    worse = logits.clone()
    worse[others] = math.nan
    again, same = graded(worse, rows, believe)
    assert torch.equal(again.loss, result.loss)
    assert torch.equal(same, gradient)


def test_padding_columns_change_nothing() -> None:
    """(sentences, positions) of two and three tokens, in a batch of three and of five columns."""
    logits, expert = random_case(rows=10, vocabulary=4)
    logits, expert = logits.view(2, 5, 4), expert.view(2, 5, 4)
    found = []
    for columns in (3, 5):
        mask = torch.arange(columns) < torch.tensor([2, 3])[:, None]
        flat = logits[:, :columns].reshape(-1, 4)
        rows = mask.flatten().nonzero().squeeze(1)
        result, gradient = graded(flat, rows, full(expert[:, :columns].reshape(-1, 4)))
        found.append((result.loss, gradient[rows]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("k", [None, 2, 4])
def test_extreme_logits(dtype: torch.dtype, k: int | None) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0, -math.inf], [-math.inf, 5.0, -math.inf, 5.0]]).to(dtype)
    expert = torch.tensor([[0.75, 0.0, 0.25, 0.0], [0.0, 0.5, 0.0, 0.5]], dtype=dtype)
    believe = full(expert) if k is None else likeliest(expert, k)
    result, gradient = graded(logits, torch.tensor([0, 1]), believe)
    assert result.loss.item() == pytest.approx(2500 + math.log(2), rel=1e-6)
    torch.testing.assert_close(
        gradient, torch.tensor([[0.25, 0.0, -0.25, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=dtype), rtol=0, atol=1e-6
    )


def test_what_is_expected_of_a_forbidden_token_is_infinite() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    result, gradient = graded(logits, torch.tensor([0]), full(torch.tensor([[0.5, 0.25, 0.25]])))
    assert result.loss.item() == math.inf
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.25, -0.25]]))


def test_the_expert_is_asked_once_for_each_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_LOGITS", 3 * 7)
    logits, expert = random_case()
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)  # of an expert that someone forgot to freeze
    asked: list[list[int]] = []

    def believe(rows: Tensor) -> Belief:
        asked.append(rows.tolist())
        assert not torch.is_grad_enabled()
        belief = DenseBelief(expert[rows] * weight)
        assert not belief.probabilities.requires_grad
        return belief

    graded(logits, torch.tensor([8, 1, 2, 3, 5, 0, 4]), believe)
    assert asked == [[8, 1, 2], [3, 5, 0], [4]]
    asked.clear()
    imitation_loss(logits, torch.tensor([8, 1, 2, 3]), believe)
    assert asked == [[8, 1, 2], [3]]


def test_backward_twice() -> None:
    logits, expert = random_case()
    leaf = logits.clone().requires_grad_()
    loss = imitation_loss(leaf, everything(logits), full(expert)).loss
    first, second = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    (doubled,) = torch.autograd.grad(2 * loss, leaf)
    assert torch.equal(first, second)
    torch.testing.assert_close(doubled, 2 * first)


def test_without_gradients_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, expert = random_case()
    rows = everything(logits)
    expected = imitation_loss(logits.clone().requires_grad_(), rows, full(expert))

    def refuse(*_: object) -> None:
        raise AssertionError("a gradient is made")

    monkeypatch.setattr(losses._CrossEntropy, "forward", refuse)
    frozen = imitation_loss(logits, rows, full(expert))
    with torch.no_grad():
        evaluated = imitation_loss(logits.clone().requires_grad_(), rows, full(expert))
    for result in (frozen, evaluated):
        assert not result.loss.requires_grad
        assert torch.equal(result.loss, expected.loss.detach())
        assert torch.equal(result.student_choice, expected.student_choice)


def test_no_position_at_all() -> None:
    logits, expert = random_case()
    result, gradient = graded(logits, torch.arange(0), full(expert))
    assert result.loss.item() == 0
    assert not gradient.any()
    assert len(result.student_choice) == len(result.expert_choice) == 0
