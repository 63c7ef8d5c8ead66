"""Small models of stock architectures that nobody has trained, to look at what is done with them."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from torch import Tensor, nn

WORDS = 20
CHANNELS = 8
SPEECH = ("s2t_transformer", "s2t_berard")
_TRANSFORMER = {
    f"{side}_{setting}": value
    for side in ("encoder", "decoder")
    for setting, value in (("layers", 1), ("embed_dim", 16), ("ffn_embed_dim", 32), ("attention_heads", 2))
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "transformer": _TRANSFORMER,
    "s2t_transformer": {**_TRANSFORMER, "conv_channels": 16, "max_source_positions": 500, "max_target_positions": 60},
    "lstm": {
        f"{side}_{setting}": value
        for side in ("encoder", "decoder")
        for setting, value in (("layers", 1), ("embed_dim", 16), ("hidden_size", 16), ("out_embed_dim", 16))
    },
    "s2t_berard": {
        "input_layers": "[16]",
        "conv_layers": "[(4, 3, 2)]",
        **{"num_blstm_layers": 1, "lstm_size": 16, "decoder_embed_dim": 16, "decoder_num_layers": 2},
        **{"decoder_hidden_dim": 32, "attention_dim": 16, "output_layer_dim": 16},
    },
}
_SEEDS = {"transformer": 26, "s2t_transformer": 3, "lstm": 17, "s2t_berard": 4}


def dictionary(pad: int = 1) -> Dictionary:
    """One of :data:`WORDS` words and four special symbols.

    Args:
        pad: id of the padding, 0 or 1; the other one is that of the beginning.
    """
    made = Dictionary()
    for word in range(WORDS):
        made.add_symbol(f"w{word}")
    made.pad_index, made.bos_index = pad, 1 - pad
    return made


def untrained(arch: str, seed: int | None = None, *, pad: int = 1, **settings: Any) -> nn.Module:
    """A model in training mode.

    Args:
        arch: ``transformer``, ``lstm``, ``s2t_transformer`` or ``s2t_berard``.
        seed: of the parameters; by default one with which greedy translations have all sorts of lengths.
        pad: id of the padding.
        settings: beside its small dimensions; dropout is 0.3 unless told otherwise.
    """
    args = Namespace(**{"dropout": 0.3, **_SETTINGS[arch], **settings})
    args.input_feat_per_channel, args.input_channels, args.speaker_to_id = CHANNELS, 1, None
    args.criterion = "cross_entropy"
    ARCH_CONFIG_REGISTRY[arch](args)
    words = dictionary(pad)
    task: Any = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEEDS[arch] if seed is None else seed)
        model: nn.Module = ARCH_MODEL_REGISTRY[arch].build_model(args, task)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                nn.init.normal_(parameter, std=0.7)
    return model.train()


def net_input(arch: str, lengths: list[int], seed: int = 1) -> dict[str, Tensor]:
    """Sources of such lengths, longest first, for an untrained model.

    Args:
        arch: text is padded on the left, as stock does, speech on the right.
        lengths: tokens, or fourths of frames.
        seed: of the sources.
    """
    generator = torch.Generator().manual_seed(seed)
    assert lengths == sorted(lengths, reverse=True)
    if arch in SPEECH:
        frames = torch.zeros(len(lengths), 4 * lengths[0], CHANNELS)
        for row, length in enumerate(lengths):
            frames[row, : 4 * length] = torch.randn(4 * length, CHANNELS, generator=generator)
        return {"src_tokens": frames, "src_lengths": 4 * torch.tensor(lengths)}
    tokens = torch.full((len(lengths), lengths[0]), 1)
    for row, length in enumerate(lengths):
        tokens[row, -length:] = torch.randint(4, 4 + WORDS, (length,), generator=generator)
        tokens[row, -1] = 2
    return {"src_tokens": tokens, "src_lengths": torch.tensor(lengths)}
