"""A fairseq decoder that consults a datastore, made from any decoder object by changing its class."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.augmentation import Augmentation, reorder_kept
from fairseq_knn.models.decoder_state import STATE, attach
from fairseq_knn.models.hidden_state import HiddenStateTap
from fairseq_knn.storage.digest import parameters_digest

_FAR_BELOW = -1e4  # nats: no neighbour's weight that matters is smaller


@dataclass(frozen=True)
class Recording:
    """What a decoder computed while it was recorded.

    Args:
        states: the hidden states of every forward, (B, T, d).
        target_log_probs: of every part of an output that was scored, the model's log-probabilities of the targets,
            float32 (b, t).
    """

    states: list[Tensor] = field(default_factory=list)
    target_log_probs: list[Tensor] = field(default_factory=list)


class KnnDecoder:
    """Mixed into the class of a decoder object by :func:`augment`; the object and its parameters stay.

    ``forward`` records the hidden state that is the query, ``get_normalized_probs`` mixes. Both are the
    only two places every stock program goes through: beam search, sampling, ensembles, scoring, training.
    """

    dictionary: Any
    knn_tap: HiddenStateTap
    knn_padding: int
    knn_fingerprint: str | None
    knn_loading: Any  # handle of the hook that takes the fingerprint
    knn_augmentation: Callable[[], Augmentation | None]
    knn_recording: Recording | None
    knn_target: Tensor | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.knn_tap.capture() as states:
            net_output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if self.knn_tap.is_output and not kwargs.get("features_only", False):
            states.append(net_output[0])
        if not states:  # features_only: no output, no query
            return net_output
        if self.knn_recording is not None:
            self.knn_recording.states.append(states[-1])
        tokens = args[0] if args else kwargs["prev_output_tokens"]
        # One token per row is a decoding step: none of them is padding. Nor is any finished in beam search, which takes
        # finished sentences out of the batch; the hypotheses that end in EOS and are carried along by sampling (3 % of
        # the rows measured) and diverse beam search (8 %) still take part in stock's choices, so they are searched.
        padding = tokens.eq(self.knn_padding) if states[-1].size(1) > 1 else None
        target = self.knn_target
        if target is not None:  # what comes before it is context, of which nobody asks what follows
            padding = target.eq(self.knn_padding)
        incremental = kwargs.get("incremental_state")
        return attach(net_output, states[-1], padding, tokens=tokens, target=target, incremental=incremental)

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        extra = net_output[1] if len(net_output) > 1 else None
        state = extra.get(STATE) if isinstance(extra, dict) else None
        augmentation = self.knn_augmentation() if state is not None else None
        target = None if sample is None else sample.get("target")
        if state is None or augmentation is None:
            stock: Tensor = super().get_normalized_probs(net_output, log_probs, sample)  # type: ignore[misc]
            if self.knn_recording is not None and target is not None:
                own = stock.gather(-1, target.unsqueeze(-1)).squeeze(-1).float()
                self.knn_recording.target_log_probs.append(own if log_probs else own.log())
            return stock
        alone = self.knn_model_log_probs(net_output, sample)
        if target is not None and state.step is None and target.shape == net_output[0].shape[:2]:
            # Programs that score look at the targets alone, so only their columns are mixed.
            highest = self._knn_highest(net_output, alone) if augmentation.has_threshold else None
            own = augmentation.target_log_probs(alone, highest, net_output[0], state, target)
            mixed = alone.scatter_(-1, target.unsqueeze(-1), own.unsqueeze(-1))
        else:
            # Search passes no sample. It never ends a hypothesis of probability 0, and breaks off with an assertion
            # if it cannot end as many as there are beams; so at lambda = 1 the model's choices stay, far below.
            least = _FAR_BELOW if sample is None else -torch.inf
            mixed = augmentation.log_probs(alone, net_output[0], state, least)
        return mixed if log_probs else mixed.exp_()

    def reorder_incremental_state(self, incremental_state: Any, new_order: Tensor) -> Any:
        reordered = super().reorder_incremental_state(incremental_state, new_order)  # type: ignore[misc]
        reorder_kept(incremental_state, new_order)
        return reordered

    def _knn_highest(self, net_output: Any, log_probs: Tensor) -> Tensor:
        """The model's highest log-probability of every position, float32 (b, t)."""
        if getattr(self, "adaptive_softmax", None) is not None:
            # With a target, an adaptive softmax fills in the columns of the target's cluster alone.
            log_probs = self.knn_model_log_probs(net_output)
        return log_probs.amax(dim=-1)

    def knn_model_log_probs(self, net_output: Any, sample: Any = None) -> Tensor:
        """The model's own log-probabilities, without neighbours: float32 (B, T, V)."""
        log_probs: Tensor = super().get_normalized_probs(net_output, True, sample)  # type: ignore[misc]
        return log_probs.float()  # an adaptive softmax computes in half precision if its input is

    def knn_project(self, states: Tensor) -> Tensor:
        """Logits (n, V) of hidden states (n, d) of the kind ``decoder_output``.

        Raises:
            ConfigurationError: the decoder has an adaptive softmax.
        """
        if getattr(self, "adaptive_softmax", None) is not None:
            raise ConfigurationError(
                f"{type(self).__name__} has an adaptive softmax, which gives no logits of a datastore's keys: use a "
                "datastore with log-probabilities (build it again), or another combiner"
            )
        layer = cast(Callable[[Tensor], Tensor], getattr(self, "output_layer", None) or self.fc3)  # type: ignore[attr-defined]
        weight = next(parameter for parameter in cast(nn.Module, self).parameters())
        return layer(states.to(weight))

    @contextlib.contextmanager
    def knn_record(self) -> Iterator[Recording]:
        """Within the block, what is computed is recorded."""
        self.knn_recording = Recording()
        try:
            yield self.knn_recording
        finally:
            self.knn_recording = None

    @contextlib.contextmanager
    def knn_scoring(self, target: Tensor) -> Iterator[None]:
        """Within the block, *target* is what should follow, int64 (B, T), padding where nobody asks."""
        self.knn_target = target
        try:
            yield
        finally:
            self.knn_target = None


def knn_decoder(model: nn.Module) -> KnnDecoder:
    """The decoder of a model that :func:`augment` was applied to."""
    return cast(KnnDecoder, model.decoder)


_classes: dict[type, type] = {}


def augment(model: nn.Module, key: str, augmentation: Callable[[], Augmentation | None]) -> None:
    """Let the decoder of *model* consult a datastore.

    The fingerprint of the model is taken whenever its parameters are loaded (before any conversion to
    half precision), and kept as ``model.decoder.knn_fingerprint``; before that it is ``None``.

    Args:
        model: a fairseq model with a ``decoder``, before or after its parameters are loaded.
        key: hidden state that is the query, one of ``hidden_state.KEY_KINDS``.
        augmentation: called at every step; ``None`` means the plain model.

    Raises:
        ConfigurationError: the model has no decoder, or no such hidden state.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is None:
        raise ConfigurationError(
            f"{type(model).__name__} has no decoder, so it has no queries for a datastore: use an encoder-decoder model"
        )
    decoder.knn_tap = HiddenStateTap(decoder, key)
    decoder.knn_padding = decoder.dictionary.pad()
    decoder.knn_augmentation = augmentation
    decoder.knn_recording = decoder.knn_target = None
    stock = type(decoder)
    if issubclass(stock, KnnDecoder):  # augmented before: now with the new settings
        return
    if stock not in _classes:
        _classes[stock] = type(f"Knn{stock.__name__}", (KnnDecoder, stock), {"__module__": __name__})
    decoder.knn_fingerprint = None
    decoder.__class__ = _classes[stock]
    decoder.knn_loading = model.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
        lambda loaded, _keys: take_fingerprint(loaded)
    )


def take_fingerprint(model: nn.Module) -> None:
    """Note which parameters an augmented model has now, if they were loaded before it was augmented."""
    knn_decoder(model).knn_fingerprint = parameters_digest(model.named_parameters())


def restore(model: nn.Module) -> None:
    """Undo :func:`augment`; nothing happens to a model that is not augmented."""
    decoder: Any = model.decoder
    if not isinstance(decoder, KnnDecoder):
        return
    decoder.knn_loading.remove()
    decoder.__class__ = next(stock for stock, augmented in _classes.items() if augmented is type(decoder))
    for name in [name for name in vars(decoder) if name.startswith("knn_")]:
        delattr(decoder, name)
