"""Where the neighbours of a forward come from: a search at every position, or pointers from the step before."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.call import Call
from fairseq_knn.huggingface.pointing_cache import candidates_of, keep_candidates
from fairseq_knn.retrieval import Automaton, Neighbours, Retriever

_SEARCHED_ROWS = 4096  # queries at a time: each gets k neighbours of 20 bytes


class Source(Protocol):
    """Finds neighbours."""

    def find(self, call: Call, query: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Neighbours]]:
        """The neighbours of a forward's positions, part after part.

        Args:
            call: the forward.
            query: hidden states, (B, n, d).
            wanted: which positions have neighbours, bool (B, n).

        Yields:
            numbers of positions counted row by row, int64 (m,) below B * n, and their neighbours, (m, k).
        """


class Searching:
    """Every position is searched: kNN-LM, and kNN-MT."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def find(self, call: Call, query: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Neighbours]]:
        queries = query.reshape(-1, query.size(-1))
        for rows in torch.split(wanted.reshape(-1).nonzero().squeeze(-1), _SEARCHED_ROWS):
            if len(rows):
                yield rows, self._retriever.retrieve(queries[rows])


class Pointing:
    """RetoMaton: every sequence follows its pointers.

    With labels a forward holds whole sequences. Otherwise it goes on with the sequences of its cache, which holds their
    neighbours of the step before, and they go with it wherever beam search takes it.
    """

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton

    def find(self, call: Call, query: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Neighbours]]:
        batch, steps = wanted.shape
        starts = torch.arange(batch, device=wanted.device) * steps
        for step, found in self._walk(call, query, wanted):
            here = wanted[:, step].nonzero().squeeze(-1)
            if len(here) and found.ids.size(1):
                yield starts[here] + step, found.select(here)

    def _walk(self, call: Call, query: Tensor, wanted: Tensor) -> Iterator[tuple[int, Neighbours]]:
        following = call.following
        if following is not None:
            yield from enumerate(self._automaton.walk(query, following.to(query.device), wanted))
            return
        cache, tokens = call.cache, call.tokens
        if cache is None:
            raise ConfigurationError(
                "RetoMaton follows pointers from token to token along the cache of the model, and this forward keeps "
                "none: leave use_cache on (and return_dict), or use KNNWrapper"
            )
        first, last = wanted.size(1) - max(1, call.kept), wanted.size(1) - 1
        before = candidates_of(call.given_cache)
        # A prompt, or another piece of several tokens, begins anew.
        if before is not None and tokens is not None and tokens.size(1) == 1 and len(before.ids) == len(tokens):
            before = self._automaton.step(before, tokens[:, -1], query[:, last], wanted[:, last])
            yield last, before
        else:
            emitted = query.new_zeros(wanted.shape, dtype=torch.int64) if tokens is None else tokens
            # What was emitted after a position is what the next was given.
            walked = self._automaton.walk(
                query[:, first:], emitted[:, emitted.size(1) - (last - first) :], wanted[:, first:]
            )
            for step, found in enumerate(walked):
                before = found
                yield first + step, found
        assert before is not None
        keep_candidates(cache, before)
