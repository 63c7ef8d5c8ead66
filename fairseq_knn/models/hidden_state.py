"""Reading one hidden state of a decoder while its own forward runs.

================  ==========================================================  =======================
kind              where                                                       used by
================  ==========================================================  =======================
decoder_output    what feeds the output projection                            adaptive kNN-MT, knn-box
ffn_input         input of the last layer's feed-forward block, normalised    kNN-LM, kNN-MT, KSTER
ffn_output        output of the last layer's feed-forward block               knn-seq, knn-transformers
================  ==========================================================  =======================
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

KEY_KINDS = ("decoder_output", "ffn_input", "ffn_output")


class HiddenStateTap:
    """Reads the hidden state of the given kind from a decoder.

    Args:
        decoder: any fairseq decoder.
        kind: one of :data:`KEY_KINDS`.

    Raises:
        ConfigurationError: the decoder has no such state.

    Attributes:
        is_output: whether the state is what the decoder returns, so that there is nothing to capture.
    """

    def __init__(self, decoder: nn.Module, kind: str) -> None:
        self._decoder = decoder
        self._kind = kind
        # There the output of the decoder is what an output projection would be fed with.
        self.is_output = kind == "decoder_output" and getattr(decoder, "adaptive_softmax", None) is not None
        self._locate()

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[Tensor]]:
        """Within the block, every state computed is appended to the list: batch x time x dimension."""
        states: list[Tensor] = []
        remove = self._locate()(states.append)
        try:
            yield states
        finally:
            remove()

    def _locate(self) -> Callable[[Callable[[Tensor], None]], Callable[[], None]]:
        """What installs a recorder at the place of the state, and gives back what removes it again."""
        # Looked up again for every call: in a copy of the decoder the modules are others.
        decoder, kind = self._decoder, self._kind
        if self.is_output:
            return lambda record: lambda: None
        if kind == "decoder_output":
            for name in ("output_projection", "fc3"):  # fc3: fconv
                module = getattr(decoder, name, None)
                if isinstance(module, nn.Module):
                    return lambda record: _on_input(module, record)
            if callable(getattr(decoder, "output_layer", None)):  # lstm ties the projection to the embedding
                return self._on_output_layer
        else:
            layers = getattr(decoder, "layers", None)
            block = getattr(layers[-1], "fc1" if kind == "ffn_input" else "fc2", None) if layers else None
            if isinstance(block, nn.Module):
                install = _on_input if kind == "ffn_input" else _on_output
                # fairseq's layers work on time x batch x dimension.
                return lambda record: install(block, lambda state: record(state.transpose(0, 1)))
        raise ConfigurationError(
            f"the decoder {type(decoder).__name__} has no hidden state {kind!r}: choose another --knn-key"
            + ("" if kind == "decoder_output" else " (decoder_output works with every architecture)")
        )

    def _on_output_layer(self, record: Callable[[Tensor], None]) -> Callable[[], None]:
        original = cast(Callable[..., Tensor], self._decoder.output_layer)

        def output_layer(features: Tensor, *args: object, **kwargs: object) -> Tensor:
            record(features)
            return original(features, *args, **kwargs)

        self._decoder.__dict__["output_layer"] = output_layer
        return lambda: self._decoder.__dict__.pop("output_layer", None)


def _on_input(module: nn.Module, record: Callable[[Tensor], None]) -> Callable[[], None]:
    return module.register_forward_pre_hook(lambda _, inputs: record(inputs[0])).remove


def _on_output(module: nn.Module, record: Callable[[Tensor], None]) -> Callable[[], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        record(output)

    return module.register_forward_hook(hook).remove
