"""Tiny untrained models of the architectures that decode in different ways."""

import argparse
import itertools
from types import SimpleNamespace
from typing import Any

import fairseq  # noqa: F401  registers the architectures
import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from torch import Tensor, nn

DICTIONARY = Dictionary()
for _number in range(13):
    DICTIONARY.add_symbol(f"w{_number}")
V = len(DICTIONARY)
D = 8

_BLOCKS = {
    "encoder_embed_dim": D,
    "encoder_ffn_embed_dim": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_embed_dim": D,
    "decoder_ffn_embed_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
}
_CONVOLUTIONS = {"encoder_kernel_size_list": [3], "decoder_kernel_size_list": [3, 3]}
_LSTM = {
    **{f"{side}_embed_dim": D for side in ("encoder", "decoder")},
    **{f"{side}_hidden_size": D for side in ("encoder", "decoder")},
    "decoder_out_embed_dim": D,
}
_FCONV = {
    **{"encoder_embed_dim": D, "encoder_layers": f"[({D}, 3)]", "decoder_embed_dim": D},
    **{"decoder_layers": f"[({D}, 3)] * 2", "decoder_out_embed_dim": D},
}
_TIED = {"share_decoder_input_output_embed": True}
_UNTIED = {"share_decoder_input_output_embed": False}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer post-norm tied": ("transformer", {**_BLOCKS, **_TIED}),
    "transformer post-norm untied": ("transformer", {**_BLOCKS, **_UNTIED}),
    "transformer pre-norm tied": ("transformer", {**_BLOCKS, **_TIED, "decoder_normalize_before": True}),
    "transformer pre-norm untied": ("transformer", {**_BLOCKS, **_UNTIED, "decoder_normalize_before": True}),
    "transformer projected": ("transformer", {**_BLOCKS, **_UNTIED, "decoder_output_dim": 6}),
    "lightconv tied": ("lightconv", {**_BLOCKS, **_CONVOLUTIONS, **_TIED}),
    "lightconv untied": ("lightconv", {**_BLOCKS, **_CONVOLUTIONS, **_UNTIED}),
    "lstm tied": ("lstm", {**_LSTM, **_TIED}),
    "lstm untied": ("lstm", {**_LSTM, **_UNTIED, "decoder_out_embed_dim": 6}),
    "fconv tied": ("fconv", {**_FCONV, "share_input_output_embed": True}),
    "fconv untied": ("fconv", _FCONV),
}
BLOCK_MODELS = [name for name in MODELS if name.startswith(("transformer", "lightconv"))]


def build(name: str, seed: int = 0, **changes: Any) -> Any:
    """One of :data:`MODELS` with random parameters, in evaluation mode.

    Args:
        name: which.
        seed: of the parameters.
        changes: settings that differ.
    """
    arch, settings = MODELS[name]
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, allow_abbrev=False)
    ARCH_MODEL_REGISTRY[arch].add_args(parser)
    args = parser.parse_args([])
    positions = {"max_source_positions": 64, "max_target_positions": 64}
    for key, value in {"criterion": "cross_entropy", **positions, **settings, **changes}.items():
        setattr(args, key, value)
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(seed)
    task = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
    model = ARCH_MODEL_REGISTRY[arch].build_model(args, task).eval()
    with torch.no_grad():  # so that layers that start as zeros or ones show, too
        for key, parameter in model.named_parameters():
            if key.endswith("conv_bias"):
                parameter.zero_()  # stock leaves lightconv's uninitialised: whatever is in memory, NaN as well
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def projection(model: Any, state: Tensor) -> Tensor:
    """The model's output layer, applied to hidden states."""
    decoder = model.decoder
    if hasattr(decoder, "fc3"):  # fconv
        logits: Tensor = decoder.fc3(state)
    elif hasattr(decoder, "fc_out"):  # lstm
        logits = decoder.fc_out(state)
    elif hasattr(decoder, "output_projection"):
        logits = decoder.output_projection(state)
    else:  # tied lstm
        logits = nn.functional.linear(state, decoder.embed_tokens.weight)
    return logits


def sample(batch: int = 3, steps: int = 5) -> dict[str, Any]:
    """A batch as fairseq's data sets make it, sources padded on the left and targets on the right."""
    pad, eos = DICTIONARY.pad(), DICTIONARY.eos()
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(4, V, (batch, 6), generator=generator)
    target = torch.randint(4, V, (batch, steps), generator=generator)
    source[:, -1] = eos
    for row, length in zip(range(batch), itertools.cycle((steps, 3, 2)), strict=False):
        target[row, length - 1] = eos
        target[row, length:] = pad
        source[row, : row % 3] = pad
    previous = target.roll(1, dims=1)
    previous[:, 0] = eos
    previous[target == pad] = pad
    return {
        "id": torch.arange(batch),
        "nsentences": batch,
        "ntokens": int((target != pad).sum()),
        "target": target,
        "net_input": {
            "src_tokens": source,
            "src_lengths": (source != pad).sum(dim=1),
            "prev_output_tokens": previous,
        },
    }


def forward(model: Any, **shape: int) -> Any:
    """The model's output for :func:`sample`."""
    return model(**sample(**shape)["net_input"])
