"""A frozen model that is asked what it would say next."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.beliefs import Belief, DenseBelief, SparseBelief, top_k
from fairseq_knn.models.checkpoint_model import load_model
from fairseq_knn.storage.digest import parameters_digest

Believe = Callable[[Tensor], Belief]


class Expert:
    """Beliefs of a frozen model.

    It is no module, so that what holds it (a criterion) neither trains nor wraps nor saves it. It goes to the device of
    its first batch by itself: in half precision where that is a GPU.

    Args:
        model: an encoder-decoder.
        path: of its checkpoint, for messages.

    Raises:
        ConfigurationError: it has an adaptive softmax.
    """

    def __init__(self, model: nn.Module, path: str) -> None:
        if getattr(model.decoder, "adaptive_softmax", None) is not None:
            raise ConfigurationError(
                f"--expert {path} has an adaptive softmax, which gives no probabilities of all tokens at once: use an "
                "expert without --adaptive-softmax-cutoff"
            )
        model.requires_grad_(False)
        self.model = model.eval()
        # Batches are sorted by the length of what the student hears; recurrent encoders expect that of their own source
        # unless told otherwise.
        told = "enforce_sorted" in inspect.signature(model.encoder.forward).parameters  # type: ignore[union-attr]
        self._unsorted = {"enforce_sorted": False} if told else {}
        self.path = path
        self._device: torch.device | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its parameters; to be asked for before beliefs are, which may change their precision."""
        return parameters_digest(self.model.named_parameters())

    @torch.no_grad()
    def beliefs(self, source: Mapping[str, Any], prefix: Tensor, output: str, k: int = 1) -> Believe:
        """What it believes after each token of each prefix.

        Its decoder runs at once; the projection to V tokens is left to the calls for some positions, so that no tensor
        of (B * T, V) comes to be.

        Args:
            source: what its encoder is fed with: ``src_tokens``, ``src_lengths``.
            prefix: int64 (B, T), padded on the right.
            output: ``full``: the distribution; ``argmax``: the likeliest token alone; ``topk``: the *k* likeliest.
            k: for ``topk``.

        Returns:
            Called with positions, rows of the flattened B * T, it gives what is believed there.

        Raises:
            ConfigurationError: a sentence or a prefix is longer than the model takes.
        """
        self._follow(prefix.device)
        self._check_lengths(source, prefix)
        model: Any = self.model
        decoder = model.decoder
        dtype = next(self.model.parameters()).dtype
        encoded = model.encoder(**{name: _as(value, dtype) for name, value in source.items()}, **self._unsorted)
        project: Callable[[Tensor], Tensor]
        if callable(getattr(decoder, "extract_features", None)) and callable(getattr(decoder, "output_layer", None)):
            features, project = decoder.extract_features(prefix, encoded)[0], decoder.output_layer
        else:
            features, project = decoder(prefix, encoder_out=encoded)[0], lambda logits: logits
        features = features.reshape(-1, features.size(-1))

        def believe(rows: Tensor) -> Belief:
            logits = project(features[rows])
            if output == "argmax":
                likeliest = logits.argmax(dim=1, keepdim=True)
                return SparseBelief(likeliest, torch.ones_like(likeliest, dtype=torch.float32))
            probabilities = logits.float().softmax(dim=1)
            return DenseBelief(probabilities) if output == "full" else top_k(probabilities, k)

        return believe

    @property
    def longest(self) -> tuple[int | None, int | None]:
        """Greatest lengths that its encoder and its decoder take."""
        source, target = self.model.max_positions()  # type: ignore[operator]
        return source, target

    def _follow(self, device: torch.device) -> None:
        if device != self._device:
            self.model.to(device)
            if device.type == "cuda":
                self.model.half()
            self._device = device

    def _check_lengths(self, source: Mapping[str, Any], prefix: Tensor) -> None:
        lengths = (int(source["src_lengths"].max()), prefix.size(1))
        for side, length, limit in zip(("source", "target"), lengths, self.longest, strict=True):
            if limit is not None and length > limit:
                raise ConfigurationError(
                    f"a {side} sentence has {length} symbols, but --expert {self.path} takes {limit}: leave such "
                    "sentences out of the data, or use another expert"
                )


def _as(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def load_expert(path: str | None, task_of: Callable[[Any], Any]) -> Expert:
    """Read an expert from its checkpoint, of which only the model is taken into memory.

    Args:
        path: of the file.
        task_of: gives the task that builds the model, from the settings of that it was trained with.

    Raises:
        ConfigurationError: there is none, it is no checkpoint of fairseq, or it does not fit the dictionaries.
    """
    if not path:
        raise ConfigurationError("--expert is missing: name the checkpoint of the model that is imitated")
    model = load_model(
        path,
        task_of,
        flag="--expert",
        role="the model that is imitated",
        remedy="name the dictionaries it was trained with by --expert-vocab-src and --expert-vocab-tgt",
    )
    return Expert(model, path)
