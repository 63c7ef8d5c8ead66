"""Every kind of hidden state is what its name says, in every architecture."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.hidden_state import KEY_KINDS, HiddenStateTap
from tests.unit.models import tiny
from tests.unit.models.tiny import BLOCK_MODELS, MODELS


def captured(model: Any, kind: str) -> tuple[Tensor, Tensor]:
    """The hidden state of the given kind and the logits of one call."""
    with HiddenStateTap(model.decoder, kind).capture() as states:
        logits = tiny.forward(model)[0]
    (state,) = states
    return state, logits


def hooks(model: nn.Module) -> int:
    """Traces of taps in a model."""
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + ("output_layer" in module.__dict__)
        for module in model.modules()
    )


@pytest.mark.parametrize("name", MODELS)
def test_decoder_output_is_what_feeds_the_projection(name: str) -> None:
    model = tiny.build(name)
    state, logits = captured(model, "decoder_output")
    assert state.shape[:2] == logits.shape[:2] == (3, 5)
    torch.testing.assert_close(tiny.projection(model, state), logits)


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_ffn_states_are_those_of_the_last_block(name: str) -> None:
    model = tiny.build(name)
    inside, logits = captured(model, "ffn_input")
    outside, _ = captured(model, "ffn_output")
    assert inside.shape == outside.shape == (*logits.shape[:2], tiny.D)
    last = model.decoder.layers[-1]
    torch.testing.assert_close(last.fc2(torch.relu(last.fc1(inside))), outside)


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_ffn_input_is_normalised(name: str) -> None:
    """It comes from the layer norm of its own block, or without one from that of the block before."""
    model = tiny.build(name)
    last = model.decoder.layers[-1]
    before = "pre-norm" in name
    norms = [m for m in last.children() if isinstance(m, nn.LayerNorm)]
    if isinstance(getattr(last, "layer_norms", None), nn.ModuleList):
        norms = list(last.layer_norms)
    norm = norms[-1] if before else norms[-2]
    outputs: list[Tensor] = []
    norm.register_forward_hook(lambda *call: outputs.append(call[2]))
    state, _ = captured(model, "ffn_input")
    torch.testing.assert_close(state, outputs[-1].transpose(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_states_of_a_position_do_not_depend_on_the_batch(name: str) -> None:
    model = tiny.build(name)
    net_input = tiny.sample()["net_input"]
    alone = {key: value[1:2] for key, value in net_input.items()}
    for kind in KEY_KINDS:
        with HiddenStateTap(model.decoder, kind).capture() as states:
            model(**net_input)
            model(**alone)
        torch.testing.assert_close(states[0][1, :3], states[1][0, :3])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KEY_KINDS)
def test_incremental_states_are_those_of_the_whole(name: str, kind: str) -> None:
    model = tiny.build(name)
    try:
        tap = HiddenStateTap(model.decoder, kind)
    except ConfigurationError:
        assert name not in BLOCK_MODELS
        return
    net_input = tiny.sample()["net_input"]
    tokens = net_input["prev_output_tokens"][:1]
    with torch.no_grad(), tap.capture() as states:
        encoded = model.encoder(net_input["src_tokens"][:1], src_lengths=net_input["src_lengths"][:1])
        model.decoder(tokens, encoder_out=encoded)
        incremental: dict[str, object] = {}
        for step in range(1, tokens.size(1) + 1):
            model.decoder(tokens[:, :step], encoder_out=encoded, incremental_state=incremental)
    whole, *steps = states
    assert all(step.shape == (1, 1, whole.size(-1)) for step in steps)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KEY_KINDS)
def test_nothing_is_left_behind(name: str, kind: str) -> None:
    model = tiny.build(name)
    before = hooks(model)
    try:
        captured(model, kind)
    except ConfigurationError:
        assert name not in BLOCK_MODELS
        assert kind != "decoder_output"
    assert hooks(model) == before


@pytest.mark.parametrize("name", ["transformer pre-norm tied", "lstm tied"])
def test_nothing_is_left_behind_by_an_error(name: str) -> None:
    model = tiny.build(name)
    before = hooks(model)
    with pytest.raises(RuntimeError, match="inside"), HiddenStateTap(model.decoder, "decoder_output").capture():
        raise RuntimeError("inside")
    assert hooks(model) == before


@pytest.mark.parametrize("name", [name for name in MODELS if name not in BLOCK_MODELS])
@pytest.mark.parametrize("kind", ["ffn_input", "ffn_output"])
def test_decoder_without_feed_forward_blocks(name: str, kind: str) -> None:
    model = tiny.build(name)
    told = rf"the decoder (LSTM|FConv)Decoder has no hidden state '{kind}': .*\(decoder_output works"
    with pytest.raises(ConfigurationError, match=told):
        HiddenStateTap(model.decoder, kind)


def test_decoder_without_output_layer() -> None:
    with pytest.raises(ConfigurationError, match="decoder Linear has no hidden state 'decoder_output': choose"):
        HiddenStateTap(nn.Linear(1, 1), "decoder_output")
