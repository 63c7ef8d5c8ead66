"""The hidden states are found in every kind of model, and are what they are called."""

from typing import Any

import pytest
import torch
import transformers

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.layers import KEY_KINDS, HiddenStateTap, output_layer

WIDE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**WIDE, "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32}
GPT = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
TWO_SIDED = {
    **{"vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 32},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24},
    **{"pad_token_id": 0, "decoder_start_token_id": 0},
}
T5 = {
    **{"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_decoder_layers": 2},
    **{"num_heads": 2, "decoder_start_token_id": 0},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", GPT),
    "GPTJForCausalLM": ("GPTJConfig", {**GPT, "rotary_dim": 4}),
    "GPTNeoForCausalLM": (
        "GPTNeoConfig",
        {
            **{"vocab_size": 40, "hidden_size": 16, "num_layers": 2, "num_heads": 2},
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", {**WIDE, "intermediate_size": 24}),
    "LlamaForCausalLM": ("LlamaConfig", LLAMA),
    "MistralForCausalLM": ("MistralConfig", LLAMA),
    "Qwen2ForCausalLM": ("Qwen2Config", LLAMA),
    "OPTForCausalLM": ("OPTConfig", {**WIDE, "ffn_dim": 24, "word_embed_proj_dim": 16}),
    "BartForConditionalGeneration": ("BartConfig", TWO_SIDED),
    "MBartForConditionalGeneration": ("MBartConfig", TWO_SIDED),
    "MarianMTModel": ("MarianConfig", TWO_SIDED),
    "M2M100ForConditionalGeneration": ("M2M100Config", TWO_SIDED),
    "T5ForConditionalGeneration": ("T5Config", T5),
}


def make(name: str) -> Any:
    config, settings = MODELS[name]
    torch.manual_seed(1)
    return getattr(transformers, name)(getattr(transformers, config)(**settings)).eval()


@pytest.mark.parametrize("name", MODELS)
def test_states_are_what_they_are_called(name: str) -> None:
    model = make(name)
    taps = {kind: HiddenStateTap(model, kind) for kind in KEY_KINDS}
    tokens = torch.randint(4, 30, (2, 7))
    labels = {"labels": tokens[:, :5].contiguous()} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        logits = model(input_ids=tokens, **labels).logits
    states = {kind: tap.take(2) for kind, tap in taps.items()}
    assert {state.shape for state in states.values()} == {(*logits.shape[:2], 16)}
    torch.testing.assert_close(output_layer(model)(states["decoder_output"]), logits)
    # What the block makes of its input is its output.
    layer = last_layer(model)
    output = layer(states["ffn_input"])
    torch.testing.assert_close(output[0] if isinstance(output, tuple) else output, states["ffn_output"])
    for tap in taps.values():
        tap.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def last_layer(model: Any) -> Any:
    """The last feed-forward block, named by hand."""
    base = model.base_model
    kind = type(model).__name__
    if kind.startswith(("GPT2", "GPTJ", "GPTNeoF")):
        return base.h[-1].mlp
    if kind.startswith("T5"):
        return model.decoder.block[-1].layer[-1].DenseReluDense
    if kind.startswith(("GPTNeoX", "Llama", "Mistral", "Qwen")):
        return base.layers[-1].mlp
    layer = base.decoder.layers[-1]
    return lambda states: layer.fc2(layer.activation_fn(layer.fc1(states)))


def test_models_without_such_a_state() -> None:
    config = transformers.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2)
    model = transformers.MambaForCausalLM(config)
    HiddenStateTap(model, "decoder_output").remove()
    with pytest.raises(ConfigurationError, match=r"last layer of MambaForCausalLM.*use the key decoder_output"):
        HiddenStateTap(model, "ffn_input")
    with pytest.raises(ConfigurationError, match="GPT2Model has no output layer"):
        output_layer(transformers.GPT2Model(transformers.GPT2Config(**GPT)))
    with pytest.raises(ConfigurationError, match="key is 'last', but must be one of decoder_output, ffn_input"):
        HiddenStateTap(model, "last")
