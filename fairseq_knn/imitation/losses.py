"""Cross entropy between expert and student, with the gradient made on the way.

Vocabularies have tens of thousands of tokens, so tensors of (positions, vocabulary) are what such a training needs
memory for. Here the expert is asked about some positions at a time and only the gradient is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_knn.imitation.beliefs import Belief, SparseBelief

_CHUNK_LOGITS = 1 << 23  # looked at at a time: 32 MiB in float32


class ImitationLoss(NamedTuple):
    """What comparing student and expert gives.

    Args:
        loss: sum over the positions, in nats; scalar, float32, or float64 if the logits are.
        student_choice: the student's likeliest token at each position, int64 (n,).
        expert_choice: the expert's, int64 (n,).
    """

    loss: Tensor
    student_choice: Tensor
    expert_choice: Tensor


def imitation_loss(logits: Tensor, rows: Tensor, believe: Callable[[Tensor], Belief]) -> ImitationLoss:
    """``- sum over positions and tokens of expert(v) log student(v)``: ImitKD-full of Lin et al. 2020.

    The gradient is that of the divergence KL(expert, student): softmax(logits) - expert. A belief in one token alone
    makes it the negative log-likelihood of that token (ImitKD-optimal). All is computed in float32, or float64 if the
    logits are; the gradient is rounded to their type after what comes from behind, so a scale of the loss, has been
    multiplied in.

    Args:
        logits: of the student, float (N, V). A token may have -inf: if the expert expects it, the loss is infinite.
        rows: the positions that count, no one twice, int64 (n,); the others have gradient zero.
        believe: gives what the expert believes at some of *rows*, in their order; called without gradients, once for
            every position.
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        return ImitationLoss(*_CrossEntropy.apply(logits, rows, believe))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        losses, *choices = _compare(logits, rows, believe, None)
        return ImitationLoss(losses.sum(), *choices)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, rows: Tensor, believe: Callable[[Tensor], Belief]
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient = torch.empty(len(rows), logits.size(1), dtype=_exact(logits), device=logits.device)
        losses, student_choice, expert_choice = _compare(logits, rows, believe, gradient)
        ctx.save_for_backward(gradient, rows)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        ctx.mark_non_differentiable(student_choice, expert_choice)
        return losses.sum(), student_choice, expert_choice

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        gradient, rows = ctx.saved_tensors
        result = torch.zeros(ctx.shape, dtype=ctx.dtype, device=gradient.device)
        for part in _chunks(len(rows), gradient.size(1)):
            result.index_copy_(0, rows[part], (gradient[part] * incoming).to(ctx.dtype))
        return result, None, None


def _compare(
    logits: Tensor, rows: Tensor, believe: Callable[[Tensor], Belief], gradient: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Args:
        gradient: is filled with the derivative of each row's loss, float (n, V).

    Returns:
        Loss of each row, float (n,), and the choices of student and expert, int64 (n,).
    """
    losses = torch.empty(len(rows), dtype=_exact(logits), device=logits.device)
    student_choice, expert_choice = torch.empty_like(rows), torch.empty_like(rows)
    for part in _chunks(len(rows), logits.size(1)):
        belief = believe(rows[part])
        tokens = belief.tokens if isinstance(belief, SparseBelief) else None
        expected = belief.probabilities.to(losses.dtype)
        expert_choice[part] = expected.argmax(dim=1) if tokens is None else tokens[:, 0]
        scores = logits[rows[part]]
        student_choice[part] = scores.argmax(dim=1)
        log_probs = scores.to(losses.dtype).log_softmax(dim=1)
        theirs = log_probs if tokens is None else log_probs.gather(1, tokens)
        # Where the expert expects nothing, a forbidden token would give 0 * -inf.
        losses[part] = -torch.where(expected > 0, expected * theirs, 0).sum(dim=1)
        if gradient is not None:
            # The mass is 1 up to rounding; with it, this is the derivative of what was summed.
            chunk = torch.exp(log_probs, out=gradient[part]).mul_(expected.sum(dim=1, keepdim=True))
            if tokens is None:
                chunk.sub_(expected)
            else:
                chunk.scatter_(1, tokens, chunk.gather(1, tokens) - expected)
    return losses, student_choice, expert_choice


def _exact(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    """Consecutive parts of some rows, bounded by how many logits they have."""
    size = max(1, _CHUNK_LOGITS // vocabulary)
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]
