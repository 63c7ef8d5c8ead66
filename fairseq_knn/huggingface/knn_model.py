"""A model that consults a datastore."""

import math
from typing import Any

import torch
from torch import Tensor

from fairseq_knn.combiners import Combiner, TrainedCombiner, mix
from fairseq_knn.combiners.measuring import add, means, measure
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.call import Call, wanted_positions
from fairseq_knn.huggingface.forward_hook import ForwardHook
from fairseq_knn.huggingface.sources import Source
from fairseq_knn.retrieval import Neighbours

_FAR_BELOW = -1e4  # nats: no neighbour's weight that matters is smaller
_MIXED_NUMBERS = 1 << 26  # log-probabilities that are mixed at a time: 256 MiB


class KnnModel(ForwardHook):
    """Neighbours in every forward of a model, until it is removed.

    The logits of the positions that neighbours are wanted for become log-probabilities of model and neighbours, float32
    whatever the model's precision is, and the loss that of these. Nothing is kept between two forwards but figures.

    Args:
        model: of transformers.
        key: hidden state that is the query, one of ``layers.KEY_KINDS``.
        combiner: how neighbours are weighed.
        source: where they come from.
        skip_threshold: none where the model alone gives one token at least this probability; ``None``: everywhere.

    Attributes:
        positions: how many positions probabilities were asked for.
        skipped: how many of them have no neighbours because the model was sure.

    Raises:
        ConfigurationError: see :class:`~fairseq_knn.huggingface.forward_hook.ForwardHook`.
    """

    def __init__(
        self, model: Any, key: str, combiner: Combiner, source: Source, skip_threshold: float | None = None
    ) -> None:
        self._combiner, self._source = combiner, source
        self._sure = None if skip_threshold is None else math.log(skip_threshold)
        self.positions = 0
        self.skipped = 0
        self._sums: dict[str, Tensor] = {}
        super().__init__(model, key)

    @property
    def figures(self) -> dict[str, float]:
        """Means of what a trained combiner did so far; see :mod:`fairseq_knn.combiners.measuring`."""
        return means(self._sums)

    def after(self, call: Call, states: Tensor) -> Any:
        self._check(call)
        given, own = call.logits, call.own_loss
        before = None if own is None else call.loss(given)
        logits = self._mixed(call, given, states)
        if own is None or before is None:
            return call.with_logits(logits, None)
        # What a model adds to its loss, such as that of a router, stays.
        return call.with_logits(logits, call.loss(logits) + (own - before))

    def _check(self, call: Call) -> None:
        if call.labels is not None and getattr(self._combiner, "weight", 0) == 1:
            raise ConfigurationError(
                "lambda is 1, so that a token without a neighbour has probability 0 and the perplexity is infinite: "
                "choose it below 1"
            )

    def _mixed(self, call: Call, given: Tensor, query: Tensor) -> Tensor:
        # In half precision a log-probability of -10 is off by up to 0.03.
        logits = given.contiguous() if given.dtype == torch.float64 else given.float().contiguous()
        if logits.requires_grad:
            logits = logits.clone()
        flat, flat_query = logits.view(-1, logits.size(-1)), query.reshape(-1, query.size(-1))
        wanted = self._unsure(flat, wanted_positions(call))
        least = _FAR_BELOW if call.labels is None else -torch.inf
        block = max(1, _MIXED_NUMBERS // logits.size(-1))
        for rows, neighbours in self._source.find(call, query, wanted):
            for part in torch.split(torch.arange(len(rows), device=rows.device), block):
                here = rows[part]
                flat[here] = self._mix(flat[here], flat_query[here], _some(neighbours, part), least)
        return logits

    def _mix(self, logits: Tensor, query: Tensor, neighbours: Neighbours, least: float) -> Tensor:
        log_probs = logits.float().log_softmax(dim=-1)
        if isinstance(self._combiner, TrainedCombiner):
            self._combiner.to(query.device)
        mixture = self._combiner.mixture(query, neighbours, log_probs)
        if isinstance(self._combiner, TrainedCombiner):
            add(self._sums, measure(mixture, neighbours))
        return mix(log_probs, neighbours.values, mixture, least=least).to(logits.dtype)

    def _unsure(self, flat: Tensor, wanted: Tensor) -> Tensor:
        """Those of the wanted positions, bool (B, n), where the model is not sure."""
        if self._sure is None:
            return wanted
        rows = wanted.reshape(-1).nonzero().squeeze(-1)
        unsure = torch.zeros(wanted.numel(), dtype=torch.bool, device=wanted.device)
        with torch.no_grad():
            for part in torch.split(rows, max(1, _MIXED_NUMBERS // flat.size(-1))):
                logits = flat[part].float()
                unsure[part] = logits.amax(dim=-1) - logits.logsumexp(dim=-1) < self._sure
        self.positions += len(rows)
        self.skipped += len(rows) - int(unsure.sum())
        return unsure.view_as(wanted)


def _some(neighbours: Neighbours, rows: Tensor) -> Neighbours:
    """Those of some queries, with all that combiners may need."""
    optional = (neighbours.keys, neighbours.key_log_probs)
    return Neighbours(
        *(part[rows] for part in (neighbours.distances, neighbours.ids, neighbours.values)),
        *(None if part is None else part[rows] for part in optional),
    )
