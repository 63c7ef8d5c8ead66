"""What a decoder is augmented with: neighbours of its hidden states, mixed into its distribution."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fairseq_knn.combiners import Combiner, TrainedCombiner, mix, mix_target, target_mass
from fairseq_knn.combiners.measuring import add, means, measure
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.decoder_state import DecoderState
from fairseq_knn.models.training_step import TrainingStep, check_retrieval
from fairseq_knn.retrieval import Automaton, Neighbours, Retriever

_PROJECTED_ROWS = 1024  # keys at a time: each becomes V logits
_SCORED_NEIGHBOURS = 1 << 21  # at a time: 20 bytes each while the positions of a batch are scored
_AUTOMATON = "knn_automaton"  # in a decoder's incremental state


class Augmentation:
    """What a decoder is augmented with.

    Args:
        combiner: how neighbours are weighed.
        retriever: where they come from.
        project: from hidden states (n, d) to logits (n, V), for combiners that need what the model makes of the keys
            where the datastores do not hold it.
        skip_threshold: no search where the model alone gives one token at least this probability; ``None`` searches
            everywhere.
        automaton: follows pointers in the place of most searches; not with a threshold.

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
        automaton: Automaton | None = None,
    ) -> None:
        self.combiner = combiner
        self.retriever = retriever
        self.automaton = automaton
        self._project = project
        self._sure = None if skip_threshold is None else math.log(skip_threshold)
        self.positions = 0
        self.skipped = 0
        self._sums: dict[str, Tensor] = {}

    @property
    def has_threshold(self) -> bool:
        """Whether the model's highest probability decides where to search."""
        return self._sure is not None

    def log_probs(self, model_log_probs: Tensor, logits: Tensor, state: DecoderState, least: float) -> Tensor:
        """Mix the neighbours into the model's log-probabilities (same shape as *logits*).

        Args:
            model_log_probs: of the part *logits* of a decoder's output.
            logits: that part.
            state: of the whole output.
            least: see :func:`~fairseq_knn.combiners.mix`.
        """
        query, padding = state.select(logits)
        place = (logits.data_ptr(), logits.shape, logits.stride())
        if state.found is None or state.found[0] != place:
            state.found = (place, self._neighbours(query, padding, model_log_probs, logits, state))
        neighbours = state.found[1]
        self._move_to(query)
        mixture = self.combiner.mixture(query, neighbours, model_log_probs)
        if isinstance(self.combiner, TrainedCombiner):
            step = state.step
            if step is None:
                add(self._sums, measure(mixture, neighbours))
            else:
                add(step.measured, measure(mixture, neighbours, step.target))
        return mix(model_log_probs, neighbours.values, mixture, least=least)

    def target_log_probs(
        self, model_log_probs: Tensor, highest: Tensor | None, logits: Tensor, state: DecoderState, target: Tensor
    ) -> Tensor:
        """Mix the neighbours into the log-probability of one token per position, float32 (b, t).

        Args:
            model_log_probs: of the part *logits* of a decoder's output, float32 (b, t, V). At least those of the targets
                are right.
            highest: the highest of these, float32 (b, t); needed with a threshold.
            logits: that part.
            state: of the whole output.
            target: the tokens, int64 (b, t).
        """
        own = model_log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1).float()
        query, padding = state.select(logits)
        if self.automaton is not None:
            mass, weight = self._walk_to_target(self.automaton, state, target)
            if (rows := state.rows(logits)) is not None:
                mass, weight = mass.view(-1)[rows], weight.view(-1)[rows]
            return mix_target(own, mass, weight)
        self._move_to(query)
        wanted = self._wanted(highest, padding, own.shape, own.device).flatten()
        mixed = own.flatten()
        positions = wanted.nonzero().squeeze(-1)
        flat_query, flat_target = query.flatten(0, -2), target.flatten()
        flat_log_probs = model_log_probs.flatten(0, -2)
        for part in positions.split(max(1, _SCORED_NEIGHBOURS // self.retriever.k)):
            neighbours = self._complete(self.retriever.retrieve(flat_query[part]))
            # Only a combiner that looks at the model's distribution gets it.
            given = flat_log_probs[part] if isinstance(self.combiner, TrainedCombiner) else flat_log_probs[:0]
            mixture = self.combiner.mixture(flat_query[part], neighbours, given)
            if isinstance(self.combiner, TrainedCombiner):
                add(self._sums, measure(mixture, neighbours, flat_target[part]))
            mass = target_mass(_matches(neighbours, flat_target[part]), mixture)
            mixed[part] = mix_target(mixed[part], mass, mixture.weight.squeeze(-1))
        return mixed.view(own.shape)

    def recall(self, neighbours: Neighbours) -> Neighbours:
        """Neighbours that were found before, from their ids and distances, with all that the combiner needs."""
        return self._complete(self.retriever.recall(neighbours))

    @property
    def figures(self) -> dict[str, float]:
        """Means of what a trained combiner did so far; see :mod:`fairseq_knn.combiners.measuring`."""
        return means(self._sums)

    def _move_to(self, query: Tensor) -> None:
        if isinstance(self.combiner, TrainedCombiner):
            self.combiner.to(query.device)

    def _neighbours(
        self,
        query: Tensor,
        padding: Tensor | None,
        model_log_probs: Tensor,
        logits: Tensor,
        state: DecoderState,
    ) -> Neighbours:
        """Of the positions *logits* of an output: searched for, or pointed to."""
        if self.automaton is None:
            highest = model_log_probs.detach().amax(dim=-1) if self.has_threshold else None
            wanted = self._wanted(highest, padding, query.shape[:-1], query.device) if self.has_threshold else None
            real = None if padding is None else ~padding
            return self._retrieve(query, real if wanted is None else wanted, model_log_probs, state.step)
        if state.incremental is not None and state.query.size(1) == 1:
            return _at_one_step(self._next(self.automaton, state))
        if state.walked is None:
            state.walked = self._walk(self.automaton, state)
        rows = state.rows(logits)
        if rows is None:
            return state.walked
        flat = state.walked.select(rows.flatten())
        return Neighbours(*(t.view(*rows.shape, -1) for t in (flat.distances, flat.ids, flat.values)))

    def _next(self, automaton: Automaton, state: DecoderState) -> Neighbours:
        """The neighbours of one step of a search, (B, m), and what is kept for the next."""
        assert state.incremental is not None
        assert state.tokens is not None
        kept = state.incremental.get(_AUTOMATON)
        before = token = None
        if kept is not None:
            before, token = Neighbours(**kept), state.tokens[:, -1]  # type: ignore[arg-type]
        query = state.query[:, 0]
        wanted = torch.ones(len(query), dtype=torch.bool, device=query.device)
        found = automaton.step(before, token, query, wanted)
        state.incremental[_AUTOMATON] = {"distances": found.distances, "ids": found.ids, "values": found.values}
        return found

    def _walk(self, automaton: Automaton, state: DecoderState) -> Neighbours:
        """The neighbours of all positions of an output, (B, T, m)."""
        assert state.tokens is not None
        wanted = torch.ones(state.query.shape[:-1], dtype=torch.bool, device=state.query.device)
        if state.padding is not None:
            wanted = ~state.padding
        following = state.tokens[:, -state.query.size(1) :].roll(-1, dims=1)
        return Neighbours.stack(list(automaton.walk(state.query, following, wanted)))

    def _walk_to_target(self, automaton: Automaton, state: DecoderState, target: Tensor) -> tuple[Tensor, Tensor]:
        """What neighbours contribute to every target of an output, and their weight, float32 (B, T) each.

        Raises:
            ConfigurationError: only a part of the targets is known.
        """
        if state.scored is not None:
            return state.scored
        whole = target if state.target is None else state.target
        if whole.shape != state.query.shape[:-1]:
            raise ConfigurationError(
                "RetoMaton follows pointers from one token to the next, but only a part of the sequence is scored at a "
                "time: leave out --softmax-batch"
            )
        wanted = torch.ones(whole.shape, dtype=torch.bool, device=whole.device)
        if state.padding is not None:
            wanted = ~state.padding
        mass = torch.full(whole.shape, -torch.inf, device=whole.device)
        weight = torch.zeros(whole.shape, device=whole.device)
        for step, neighbours in enumerate(automaton.walk(state.query, whole, wanted)):
            query = state.query[:, step]
            mixture = self.combiner.mixture(query, neighbours, query.new_empty(0))
            mass[:, step] = target_mass(_matches(neighbours, whole[:, step]), mixture)
            weight[:, step] = mixture.weight.squeeze(-1)
        state.scored = mass, weight
        return state.scored

    def _retrieve(
        self, query: Tensor, wanted: Tensor | None, model_log_probs: Tensor, step: TrainingStep | None
    ) -> Neighbours:
        own = None if step is None else step.own
        neighbours = self._complete(self.retriever.retrieve(query, wanted, own))
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

    def _wanted(
        self, highest: Tensor | None, padding: Tensor | None, shape: torch.Size, device: torch.device
    ) -> Tensor:
        """Which positions to search, bool (b, t).

        Args:
            highest: the model's highest log-probability of each, float32 (b, t); needed with a threshold.
            padding: bool (b, t), or ``None`` if there is none.
            shape, device: of the result.
        """
        real = torch.ones(shape, dtype=torch.bool, device=device) if padding is None else ~padding
        if self._sure is None:
            return real
        assert highest is not None
        wanted = real & (highest < self._sure)
        positions = int(real.sum())
        self.positions += positions
        self.skipped += positions - int(wanted.sum())
        return wanted


def reorder_kept(incremental: dict[str, dict[str, Tensor | None]], order: Tensor) -> None:
    """Let what is kept between two steps of a search follow its hypotheses.

    Args:
        incremental: of a decoder.
        order: which row each row comes from, int64 (B',).
    """
    if (kept := incremental.get(_AUTOMATON)) is not None:
        incremental[_AUTOMATON] = {name: None if t is None else t.index_select(0, order) for name, t in kept.items()}


def _at_one_step(neighbours: Neighbours) -> Neighbours:
    """(B, m) as (B, 1, m)."""
    return Neighbours(*(t.unsqueeze(1) for t in (neighbours.distances, neighbours.ids, neighbours.values)))


def _matches(neighbours: Neighbours, target: Tensor) -> Tensor:
    """Which neighbours' token is the target, int64 (...); bool (..., k)."""
    return neighbours.found & (neighbours.values == target.unsqueeze(-1))
