"""A state knows which of its positions a piece of logits is, however fairseq cuts it."""

import pytest
import torch
from torch import Tensor

from fairseq_knn.models.decoder_state import STATE, DecoderState, attach

B, T, V = 3, 4, 5


def state_of(logits: Tensor) -> DecoderState:
    _, extra = attach((logits, None), torch.zeros(*logits.shape[:2], 2), None)
    state = extra[STATE]
    assert isinstance(state, DecoderState)
    return state


def positions(batch: int = B, steps: int = T) -> Tensor:
    return torch.arange(batch * steps).view(batch, steps)


@pytest.fixture
def state() -> DecoderState:
    return state_of(torch.randn(B, T, V))


def test_the_whole(state: DecoderState) -> None:
    assert state.rows(state.logits) is None
    assert state.rows(state.logits.clone()) is None
    assert state.rows(state.logits.double()) is None
    assert state.rows(state.logits.view(B * T, V).view(B, T, V)) is None


def test_views(state: DecoderState) -> None:
    expected = positions()
    for chosen in (
        (slice(None), slice(-1, None)),  # beam search
        (slice(None), slice(1, None)),  # after a prefix
        (slice(None), slice(0, None, 2)),
        (slice(1, 2), slice(None)),
        (slice(0, 3, 2), slice(1, 3)),
    ):
        rows = state.rows(state.logits[chosen])
        assert rows is not None
        assert torch.equal(rows, expected[chosen])


def test_transposed(state: DecoderState) -> None:
    rows = state.rows(state.logits.transpose(0, 1))
    assert rows is not None
    assert torch.equal(rows, positions().T)
    square = state_of(torch.randn(4, 4, V))
    rows = square.rows(square.logits.transpose(0, 1))
    assert rows is not None
    assert torch.equal(rows, positions(4, 4).T)


@pytest.mark.parametrize("size", range(1, B * T + 2))
def test_flattened_chunks(state: DecoderState, size: int) -> None:
    """``SequenceScorer`` with ``--softmax-batch``."""
    flat = state.logits.contiguous().view(1, -1, V)
    for start in range(0, B * T, size):
        rows = state.rows(flat[:, start : start + size])
        assert rows is not None
        assert torch.equal(rows, positions().view(1, -1)[:, start : start + size])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_flattened_chunks_of_one_sentence(size: int) -> None:
    """The last position alone and the first chunk of one token have one shape."""
    state = state_of(torch.randn(1, 3, V))
    for start in range(0, 3, size):
        rows = state.rows(state.logits.view(1, -1, V)[:, start : start + size])
        if size == 3:
            assert rows is None
        else:
            assert rows is not None
            assert torch.equal(rows, positions(1, 3)[:, start : start + size])


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (1, 4), (3, 4)])
def test_last_position_scaled_in_place(batch: int, steps: int) -> None:
    """``EnsembleModel.forward_decoder`` with a temperature."""
    state = state_of(torch.randn(batch, steps, V))
    rows = state.rows(state.logits[:, -1:, :].div_(1.5))
    if steps == 1:
        assert rows is None
    else:
        assert rows is not None
        assert torch.equal(rows, positions(batch, steps)[:, -1:])


def test_copy_of_the_last_position(state: DecoderState) -> None:
    for logits in (state.logits[:, -1:].clone(), state.logits[:, -1:].double()):
        rows = state.rows(logits)
        assert rows is not None
        assert torch.equal(rows, positions()[:, -1:])


@pytest.mark.parametrize("batch", [1, 3])
def test_logits_that_were_not_contiguous(batch: int) -> None:
    """Flattening them would make a copy, whose place in memory says nothing."""
    logits = torch.randn(T, batch, V).transpose(0, 1)
    (attached, extra) = attach((logits, None), torch.zeros(batch, T, 2), None)
    assert torch.equal(attached, logits)
    flat = attached.contiguous().view(1, -1, V)
    for start in range(batch * T):
        rows = extra[STATE].rows(flat[:, start : start + 1])
        assert rows.tolist() == [[start]]


def test_part_of_something_larger() -> None:
    """The logits themselves may begin anywhere in their memory."""
    state = state_of(torch.randn(2 * B, T, V)[B:])
    rows = state.rows(state.logits[:, 1:3])
    assert rows is not None
    assert torch.equal(rows, positions()[:, 1:3])


@pytest.mark.parametrize("shape", [(B, 2, V), (1, 5, V), (B, T, V + 1), (B, 1, V - 1), (B * T, V), (B + 1, 1, V)])
def test_what_is_no_part_is_refused(state: DecoderState, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits of shape .* are not part of the decoder's output \(3, 4, 5\)"):
        state.rows(torch.randn(shape))


def test_part_of_the_vocabulary_is_refused(state: DecoderState) -> None:
    with pytest.raises(ValueError, match="are not part"):
        state.rows(state.logits[..., 1:])


def test_query_and_padding_of_a_part() -> None:
    padding = torch.tensor([[False, False, True]])
    query = torch.randn(1, 3, 2)
    logits, extra = attach((torch.randn(1, 3, V), None), query, padding)
    assert extra[STATE].select(logits) == (query, padding)
    part, padded = extra[STATE].select(logits[:, 1:])
    assert torch.equal(part, query[:, 1:])
    assert torch.equal(padded, padding[:, 1:])
    logits, extra = attach((torch.randn(1, 3, V), None), query, None)
    assert extra[STATE].select(logits[:, 1:])[1] is None


def test_attached_to_whatever_a_decoder_returns() -> None:
    logits, attention = torch.randn(B, T, V), torch.randn(B, T, 7)
    query = torch.zeros(B, T, 2)
    given = {"attn": [attention], "inner_states": []}
    for rest, attn in (
        ((given,), [attention]),
        ((attention,), [attention]),
        ((None,), [None]),
        ((), [None]),
    ):
        same, extra = attach((logits, *rest), query, None)
        assert same is logits
        assert extra["attn"] == attn
        assert extra[STATE].query is query
    assert set(given) == {"attn", "inner_states"}  # the decoder's own dictionary is not changed
