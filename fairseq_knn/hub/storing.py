"""Storing what a model of fairseq computes while it is scored."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from fairseq_knn.datastore.sequences import SequenceWriter
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.hub.models import require_untouched
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.decoder_state import DecoderState
from fairseq_knn.models.knn_decoder import augment, knn_decoder, restore


class StoringHub:
    """Every scoring adds its sequences to a datastore, until it is removed.

    Args:
        model: a fairseq model with a decoder.
        key: hidden state that is the key, one of ``hidden_state.KEY_KINDS``.

    Attributes:
        writer: of the datastore; given before the first scoring.

    Raises:
        ConfigurationError: the model consults datastores already, or has no such hidden state.
    """

    def __init__(self, model: nn.Module, key: str) -> None:
        require_untouched([model])
        self.writer: SequenceWriter | None = None
        self._model = model
        augment(model, key, lambda: cast(Augmentation, self))
        self._padding = knn_decoder(model).knn_padding

    def remove(self) -> None:
        """Leave the model as it was."""
        restore(self._model)

    # What a decoder asks of an augmentation:

    has_threshold = False

    def target_log_probs(
        self, model_log_probs: Tensor, highest: Tensor | None, logits: Tensor, state: DecoderState, target: Tensor
    ) -> Tensor:
        """The model's own, which are stored with the hidden states; see :class:`~fairseq_knn.models.augmentation`."""
        own = model_log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1).float()
        query, _ = state.select(logits)
        wanted = target != self._padding
        assert self.writer is not None
        self.writer.add(
            wanted.sum(dim=1).tolist(),
            query[wanted].to(torch.float16).cpu().numpy(),
            target[wanted].cpu().numpy(),
            own[wanted].cpu().numpy(),
        )
        return own

    def log_probs(self, *_: Any) -> Tensor:
        """
        Raises:
            ConfigurationError: always; nothing is known of what should follow.
        """
        raise ConfigurationError(
            "a datastore is made of what should follow, and this is a search for it: score sentences (hub.score), or "
            "break_out() first"
        )
