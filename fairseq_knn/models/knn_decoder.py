"""A fairseq decoder that consults a datastore, made from any decoder object by changing its class."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from fairseq_knn.combiners import Combiner, TrainedCombiner, mix
from fairseq_knn.combiners.measuring import add, means, measure
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.decoder_state import STATE, DecoderState, attach
from fairseq_knn.models.hidden_state import HiddenStateTap
from fairseq_knn.models.training_step import TrainingStep, check_retrieval
from fairseq_knn.retrieval import Neighbours, Retriever
from fairseq_knn.storage.digest import parameters_digest

_FAR_BELOW = -1e4  # nats: no neighbour's weight that matters is smaller
_PROJECTED_ROWS = 1024  # keys at a time: each becomes V logits


class Augmentation:
    """What a decoder is augmented with.

    Args:
        combiner: how neighbours are weighed.
        retriever: where they come from.
        project: from hidden states (n, d) to logits (n, V), for combiners that need what the model makes of the keys
            where the datastores do not hold it.
        skip_threshold: no search where the model alone gives one token at least this probability; ``None`` searches
            everywhere.

    Attributes:
        positions: how many positions, padding excluded, probabilities were asked for.
        skipped: how many of them were not searched because the model was sure. Counted with a threshold only.
    """

    def __init__(
        self,
        combiner: Combiner,
        retriever: Retriever,
        skip_threshold: float | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.combiner = combiner
        self.retriever = retriever
        self._project = project
        self._sure = None if skip_threshold is None else math.log(skip_threshold)
        self.positions = 0
        self.skipped = 0
        self._sums: dict[str, Tensor] = {}
        self._checked = False

    def log_probs(
        self, model_log_probs: Tensor, logits: Tensor, state: DecoderState, least: float, target: Tensor | None = None
    ) -> Tensor:
        """Mix the neighbours into the model's log-probabilities (same shape as *logits*).

        Args:
            model_log_probs: of the part *logits* of a decoder's output.
            logits: that part.
            state: of the whole output.
            least: see :func:`~fairseq_knn.combiners.mix`.
            target: what should follow, int64 (b, t), if that is known.
        """
        query, padding = state.select(logits)
        place = (logits.data_ptr(), logits.shape, logits.stride())
        if state.found is None or state.found[0] != place:
            wanted = self._wanted(model_log_probs, padding)
            state.found = (place, self._retrieve(query, wanted, model_log_probs, state.step))
        neighbours = state.found[1]
        if isinstance(self.combiner, TrainedCombiner):
            self.combiner.to(query.device)
        mixture = self.combiner.mixture(query, neighbours, model_log_probs)
        if isinstance(self.combiner, TrainedCombiner):
            step = state.step
            if step is None:
                add(self._sums, measure(mixture, neighbours, target))
            else:
                add(step.measured, measure(mixture, neighbours, step.target))
        return mix(model_log_probs, neighbours.values, mixture, least=least)

    def recall(self, neighbours: Neighbours) -> Neighbours:
        """Neighbours that were found before, from their ids and distances, with all that the combiner needs."""
        return self._complete(self.retriever.recall(neighbours))

    @property
    def figures(self) -> dict[str, float]:
        """Means of what a trained combiner did so far; see :mod:`fairseq_knn.combiners.measuring`."""
        return means(self._sums)

    def _retrieve(
        self, query: Tensor, wanted: Tensor | None, model_log_probs: Tensor, step: TrainingStep | None
    ) -> Neighbours:
        own = None if step is None else step.own
        neighbours = self._complete(self.retriever.retrieve(query, wanted, own))
        if step is None and not self._checked and self.retriever.statistics.queries:
            # The first search alone: to ask at every step would make a GPU wait. Without neighbours it is the model
            # that translates, and nobody would notice.
            self._checked = True
            if not neighbours.found.any():
                check_retrieval(query, neighbours)
        if step is None or not isinstance(self.combiner, TrainedCombiner):
            return neighbours
        check_retrieval(query, neighbours)
        if not self.combiner.training:
            return neighbours
        at_target = model_log_probs.gather(-1, step.target.unsqueeze(-1)).squeeze(-1)
        return self.combiner.disturbed(query, neighbours, step.target, at_target, step.update)

    def _complete(self, neighbours: Neighbours) -> Neighbours:
        """With the model's log-probability of every neighbour's token in its own place, if the combiner needs it.

        Where datastores do not hold it, it is what the model makes of the neighbours' keys.
        """
        if not self.combiner.needs_key_log_probs or neighbours.key_log_probs is not None:
            return neighbours
        assert self._project is not None
        assert neighbours.keys is not None
        keys, values = neighbours.keys.flatten(0, -2), neighbours.values.flatten().unsqueeze(-1)
        parts = []
        for start in range(0, len(keys), _PROJECTED_ROWS):
            rows = slice(start, start + _PROJECTED_ROWS)
            logits = self._project(keys[rows]).float()
            parts.append(logits.gather(-1, values[rows]).squeeze(-1) - logits.logsumexp(dim=-1))
        return replace(neighbours, key_log_probs=torch.cat(parts).view_as(neighbours.distances))

    def _wanted(self, model_log_probs: Tensor, padding: Tensor | None) -> Tensor | None:
        """Which positions to search, bool (b, t); ``None`` for all."""
        real = None if padding is None else ~padding
        if self._sure is None:
            return real
        unsure = model_log_probs.detach().amax(dim=-1) < self._sure
        wanted = unsure if real is None else unsure & real
        positions = unsure.numel() if real is None else int(real.sum())
        self.positions += positions
        self.skipped += positions - int(wanted.sum())
        return wanted


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
    knn_recorded: list[Tensor] | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.knn_tap.capture() as states:
            net_output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if not states:  # features_only: no output, no query
            return net_output
        if self.knn_recorded is not None:
            self.knn_recorded.append(states[-1])
        tokens = args[0] if args else kwargs["prev_output_tokens"]
        # One token per row is a decoding step: none of them is padding. Nor is any finished in beam search, which takes
        # finished sentences out of the batch; the hypotheses that end in EOS and are carried along by sampling (3 % of
        # the rows measured) and diverse beam search (8 %) still take part in stock's choices, so they are searched.
        padding = tokens.eq(self.knn_padding) if states[-1].size(1) > 1 else None
        return attach(net_output, states[-1], padding)

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        extra = net_output[1] if len(net_output) > 1 else None
        state = extra.get(STATE) if isinstance(extra, dict) else None
        augmentation = self.knn_augmentation() if state is not None else None
        if state is None or augmentation is None:
            stock: Tensor = super().get_normalized_probs(net_output, log_probs, sample)  # type: ignore[misc]
            return stock
        # Search passes no sample. It never ends a hypothesis of probability 0, and breaks off with an assertion
        # if it cannot end as many as there are beams; so at lambda = 1 the model's choices stay, far below.
        least = _FAR_BELOW if sample is None else -torch.inf
        target = None if sample is None else sample.get("target")
        if target is not None and target.shape != net_output[0].shape[:2]:
            target = None  # of the whole output, while this is a part
        log_probs_alone = self.knn_model_log_probs(net_output, sample)
        mixed = augmentation.log_probs(log_probs_alone, net_output[0], state, least, target)
        return mixed if log_probs else mixed.exp_()

    def knn_model_log_probs(self, net_output: Any, sample: Any = None) -> Tensor:
        """The model's own log-probabilities, without neighbours: float32 (B, T, V)."""
        log_probs: Tensor = super().get_normalized_probs(net_output, True, sample)  # type: ignore[misc]
        return log_probs

    def knn_project(self, states: Tensor) -> Tensor:
        """Logits (n, V) of hidden states (n, d) of the kind ``decoder_output``."""
        layer = cast(Callable[[Tensor], Tensor], getattr(self, "output_layer", None) or self.fc3)  # type: ignore[attr-defined]
        weight = next(parameter for parameter in cast(nn.Module, self).parameters())
        return layer(states.to(weight))

    @contextlib.contextmanager
    def knn_record(self) -> Iterator[list[Tensor]]:
        """Within the block, the hidden states of every forward are appended to the list."""
        self.knn_recorded = []
        try:
            yield self.knn_recorded
        finally:
            self.knn_recorded = None


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
        ConfigurationError: the model has no decoder, an adaptive softmax, or no such hidden state.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is None:
        raise ConfigurationError(
            f"{type(model).__name__} has no decoder, so it has no queries for a datastore: use an encoder-decoder model"
        )
    if getattr(decoder, "adaptive_softmax", None) is not None:
        raise ConfigurationError(
            f"{type(model).__name__} was trained with an adaptive softmax, which translation with a "
            "datastore does not support: use a model with a full output layer"
        )
    decoder.knn_tap = HiddenStateTap(decoder, key)
    decoder.knn_padding = decoder.dictionary.pad()
    decoder.knn_augmentation = augmentation
    decoder.knn_recorded = None
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
