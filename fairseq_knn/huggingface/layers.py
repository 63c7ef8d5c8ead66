"""Reading one hidden state of a model while its own forward runs.

The places are found in the structure of the model, not by its name:

================  =======================================================================================
kind              where
================  =======================================================================================
decoder_output    what feeds the output layer
ffn_input         input of the feed-forward block of the decoder's last layer
ffn_output        output of that block; but for BLOOM and MPT before it is added to what goes around it
================  =======================================================================================
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

KEY_KINDS = ("decoder_output", "ffn_input", "ffn_output")

# What feed-forward blocks are called: as a module of their own (GPT-2, Llama, T5, ...), or as the first and last of
# their linear layers (BART, Marian, OPT, ...).
_BLOCKS = ("mlp", "DenseReluDense", "feed_forward", "ffn", "block_sparse_moe", "ff")
_LINEAR = (("fc1", "fc2"), ("linear1", "linear2"), ("lin1", "lin2"))


class HiddenStateTap:
    """Keeps the hidden states of the last forward, until they are taken.

    Args:
        model: a model with an output layer.
        kind: one of :data:`KEY_KINDS`.

    Raises:
        ConfigurationError: the model has no such state.
    """

    def __init__(self, model: Any, kind: str) -> None:
        if kind not in KEY_KINDS:
            raise ConfigurationError(f"the key is {kind!r}, but must be one of {', '.join(KEY_KINDS)}")
        self._state: Tensor | None = None
        if kind == "decoder_output":
            self._handle = output_layer(model).register_forward_pre_hook(self._on_input)
        else:
            first, last = _feed_forward(model)
            if kind == "ffn_input":
                self._handle = first.register_forward_pre_hook(self._on_input)
            else:
                self._handle = last.register_forward_hook(self._on_output)

    def take(self, batch: int) -> Tensor:
        """The hidden states of the forward that has just ended, (B, T, d).

        Args:
            batch: B; some layers work on all positions in one row.
        """
        state, self._state = self._state, None
        assert state is not None
        return state.reshape(batch, -1, state.size(-1))

    def remove(self) -> None:
        """Leave the model."""
        self._handle.remove()
        self._state = None

    def _on_input(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._state = inputs[0].detach()

    def _on_output(self, _module: nn.Module, _inputs: object, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output  # a mixture of experts gives its routing too
        self._state = state.detach()


def output_layer(model: Any) -> nn.Module:
    """What turns hidden states into logits.

    Raises:
        ConfigurationError: the model has no such layer.
    """
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Module):
        raise ConfigurationError(
            f"{type(model).__name__} has no output layer over its vocabulary, so it predicts no tokens: use a model "
            "for causal language modelling or for translation (AutoModelForCausalLM, AutoModelForSeq2SeqLM)"
        )
    return layer


def _feed_forward(model: Any) -> tuple[nn.Module, nn.Module]:
    """First and last module of the feed-forward block of the decoder's last layer."""
    layers = next((m for m in _breadth_first(model.get_decoder()) if isinstance(m, nn.ModuleList) and len(m)), None)
    if layers is not None:
        for module in _breadth_first(layers[-1]):
            for name in _BLOCKS:
                if isinstance(block := getattr(module, name, None), nn.Module):
                    return block, block
            for names in _LINEAR:
                first, last = (getattr(module, name, None) for name in names)
                if isinstance(first, nn.Module) and isinstance(last, nn.Module):
                    return first, last
    raise ConfigurationError(
        f"no feed-forward block is found in the last layer of {type(model).__name__}, so it has no hidden state "
        "'ffn_input' or 'ffn_output': use the key decoder_output, which works with every model"
    )


def _breadth_first(module: nn.Module) -> Iterator[nn.Module]:
    waiting = deque([module])
    while waiting:
        yield (here := waiting.popleft())
        waiting.extend(here.children())
