"""What a decoder computed in one call, travelling with its output."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairseq_knn.models.training_step import TrainingStep
from fairseq_knn.retrieval import Neighbours

STATE = "knn_state"


@dataclass
class DecoderState:
    """Hidden states and logits of one decoder call.

    It rides in the ``extra`` dictionary of fairseq's ``(logits, extra)``, never on the model, so calls
    cannot mix up.

    Args:
        query: hidden states, (B, T, d).
        logits: the output the state belongs to, contiguous (B, T, V); with an adaptive softmax its input, (B, T, d).
        padding: which positions are padding, bool (B, T), or ``None`` if there are none.
        tokens: what the decoder was given, int64 (B, T or more: the last T count), or ``None``.
        target: what should follow, padding where nobody asks, int64 (B, T), if a program that scores has told.
        incremental: what the decoder keeps between two steps of a search, which reorders it as its beams change places.
        step: what training a combiner knows of the batch, or ``None``.
        found: neighbours of the part of the output that was asked for last, by the place of that part: criterions ask
            for the same probabilities twice.
        walked: neighbours of all positions, from following pointers.
        scored: what these contribute to the target, and their weight against the model, float32 (B, T).
    """

    query: Tensor
    logits: Tensor
    padding: Tensor | None
    tokens: Tensor | None = None
    target: Tensor | None = None
    incremental: dict[str, dict[str, Tensor | None]] | None = field(default=None, repr=False)
    step: TrainingStep | None = None
    found: tuple[object, Neighbours] | None = field(default=None, repr=False)
    walked: Neighbours | None = field(default=None, repr=False)
    scored: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def select(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states (b, t, d) and padding (b, t) of the positions that *logits* (b, t, V) are.

        Raises:
            ValueError: they are not a part of this output.
        """
        rows = self.rows(logits)
        if rows is None:
            return self.query, self.padding
        padding = None if self.padding is None else self.padding.reshape(-1)[rows]
        return self.query.reshape(-1, self.query.size(-1))[rows], padding

    def rows(self, logits: Tensor) -> Tensor | None:
        """Which positions (flattened B * T) *logits* are; ``None`` for all, in place.

        fairseq passes parts of the logits without saying which: the last position
        (``EnsembleModel.forward_decoder``), or a slice of the flattened positions (``SequenceScorer`` with
        ``--softmax-batch``). Both are views, so their place in the memory of the whole tells. A copy can only
        be of the whole or of the last position.

        Args:
            logits: (b, t, V).

        Returns:
            int64 (b, t) or ``None``.

        Raises:
            ValueError: they are not a part of this output.
        """
        whole = self.logits
        same_shape = logits.shape == whole.shape
        if same_shape and logits.stride() == whole.stride():
            return None
        if logits.dim() == 3 and logits.size(-1) == whole.size(-1):
            batch, steps, vocabulary = logits.shape
            index = torch.arange(whole.size(0) * whole.size(1), device=logits.device)
            if logits.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr():
                first = (logits.storage_offset() - whole.storage_offset()) // vocabulary
                strides = (logits.stride(0) // vocabulary, logits.stride(1) // vocabulary)
                return index.as_strided((batch, steps), strides, first)
            if same_shape:
                return None
            if batch == whole.size(0) and steps == 1:
                return index.view(whole.shape[:2])[:, -1:]
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} are not part of the decoder's output {tuple(whole.shape)}"
        )


def attach(
    net_output: tuple[Any, ...], query: Tensor, padding: Tensor | None, **known: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Add a :class:`DecoderState` to a decoder's output, whatever that decoder returns beside its logits.

    Transformers return a dictionary, speech decoders ``None``, lstm and fconv the attention or ``None``.
    Every caller in fairseq looks for ``attn`` in a dictionary. *known* is what else is in the state.
    """
    # Contiguous, so that every part fairseq makes of them (it flattens them) is a view.
    logits, rest = net_output[0].contiguous(), net_output[1] if len(net_output) > 1 else None
    extra = dict(rest) if isinstance(rest, dict) else {"attn": [rest]}
    extra[STATE] = DecoderState(query, logits, padding, **known)
    return logits, extra
