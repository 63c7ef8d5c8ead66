"""RetoMaton (Alon et al. 2022, arXiv 2201.12431): neighbours that are pointed to instead of searched for.

The entry after a neighbour whose token was emitted is likely to be a neighbour at the next step. The entries of a
datastore are the states of an automaton, these pointers its edges, and entries of one cluster share theirs.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fairseq_knn.clustering import Clusters
from fairseq_knn.datastore import LANGUAGE_MODEL, Datastore
from fairseq_knn.errors import DatastoreError
from fairseq_knn.retrieval.members import Members
from fairseq_knn.retrieval.neighbours import Neighbours
from fairseq_knn.retrieval.retriever import Retriever

_MAX_KNNS = 1024  # the paper's, of language models


class AutomatonStatistics:
    """How many steps there were, and how many of them searched.

    Attributes:
        steps: steps of all sequences.
        searched: those at which the datastore was searched.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.searched = 0

    @property
    def saved(self) -> float:
        """The paper's FoSS: the fraction of saved searches."""
        return 1 - self.searched / self.steps if self.steps else 0.0


class Automaton:
    """Walks many sequences side by side; nothing is kept here between two steps.

    At every step, a sequence's pointers are the entries that follow those neighbours of the step before whose token
    was emitted. With fewer than *min_knns* pointers the datastore is searched. The neighbours are what was searched and
    what is pointed to, and, with clusters, the other entries of the pointers' clusters, up to *max_knns*.

    Args:
        retriever: searches, and measures the distances to what is pointed to.
        continues: whether the entry after an entry is its next token, bool (N,).
        members: of the clusters, if pointers are shared.
        min_knns: with fewer pointers than these the datastore is searched; at *max_knns* or more always.
        max_knns: how many entries are pointed to at most.
        reference: count as the authors' program does: an entry that is both searched and pointed to (or in the cluster
            of a pointer) twice, and pointers from the end of a document to the beginning of the next.
    """

    def __init__(
        self,
        retriever: Retriever,
        continues: Tensor,
        members: Members | None = None,
        *,
        min_knns: int = 1,
        max_knns: int = 1024,
        reference: bool = False,
    ) -> None:
        if reference:
            continues = torch.ones_like(continues)
            continues[-1] = False
        self._retriever, self._continues, self._members = retriever, continues, members
        self.min_knns, self.max_knns, self._reference = min_knns, max_knns, reference
        self.statistics = AutomatonStatistics()

    @torch.no_grad()
    def walk(self, query: Tensor, tokens: Tensor, wanted: Tensor) -> Iterator[Neighbours]:
        """The neighbours of whole sequences, step by step.

        Args:
            query: hidden states, (B, T, d).
            tokens: emitted after each step, int64 (B, T); the last is not looked at.
            wanted: which positions have neighbours, bool (B, T); pointers do not reach over others.

        Yields:
            of every step, (B, m) with m of its own.
        """
        before: Neighbours | None = None
        for step in range(query.size(1)):
            token = None if before is None else tokens[:, step - 1]
            before = self.step(before, token, query[:, step], wanted[:, step])
            yield before

    @torch.no_grad()
    def step(self, before: Neighbours | None, token: Tensor | None, query: Tensor, wanted: Tensor) -> Neighbours:
        """One step of every sequence.

        Args:
            before: neighbours of the step before, (B, m'), or ``None`` at the first.
            token: what was emitted then, int64 (B,).
            query: hidden states, (B, d).
            wanted: which sequences have this step, bool (B,).

        Returns:
            the neighbours, (B, m): what was searched, nearest first, then what is pointed to; the others have none.
        """
        if before is None or token is None:
            pointers = torch.empty((len(query), 0), dtype=torch.int64, device=query.device)
        else:
            pointers = self._follow(before, token).masked_fill(~wanted.unsqueeze(1), -1)
        counts = (pointers >= 0).sum(dim=1)
        search = wanted & ((counts < self.min_knns) | (self.min_knns >= self.max_knns))
        self.statistics.steps += int(wanted.sum())
        self.statistics.searched += int(search.sum())
        pointers = self._extend(pointers)
        if not search.any():
            # One that is missing, where there is none at all: combiners take the nearest of at least one.
            return self._measured(query, pointers if pointers.size(1) else pointers.new_full((len(query), 1), -1))
        found = self._retriever.retrieve(query, search)
        if not self._reference and pointers.size(1):
            both = without_repetitions(torch.cat([found.ids, pointers], dim=1))
            pointers = both[:, found.ids.size(1) :]
        return found.followed_by(self._measured(query, pointers))

    def _follow(self, before: Neighbours, token: Tensor) -> Tensor:
        """Entries after those whose token was emitted, of nearer ones first, int64 (B, m); -1 for none."""
        right = before.found & (before.values == token.unsqueeze(1))
        right &= self._continues[before.ids.clamp(min=0)]
        distances, order = before.distances.masked_fill(~right, torch.inf).sort(dim=1, stable=True)
        width = int(right.sum(dim=1).max()) if len(right) else 0
        # A neighbour at an infinite distance is none.
        ids = before.ids.gather(1, order[:, :width]) + 1
        return ids.masked_fill(~distances[:, :width].isfinite(), -1)

    def _extend(self, pointers: Tensor) -> Tensor:
        """With the members of their clusters, as long as there are fewer than allowed, int64 (B, <= max_knns)."""
        if self._members is None or not pointers.size(1):
            return pointers[:, : self.max_knns]
        few = (pointers >= 0).sum(dim=1, keepdim=True) < self.max_knns
        sharing = pointers.masked_fill(~few, -1)
        extended = torch.cat([pointers, self._members.of(sharing, self.max_knns)], dim=1)
        if not self._reference:
            extended = without_repetitions(extended)
        return _packed(extended, self.max_knns)

    def _measured(self, query: Tensor, ids: Tensor) -> Neighbours:
        distances = self._retriever.measure(query, ids)
        return Neighbours(distances, ids, self._retriever.values_of(ids))


def without_repetitions(ids: Tensor) -> Tensor:
    """The same, with -1 in the place of everything that stands further left in its row already; int64 (B, m)."""
    ordered, places = ids.sort(dim=1, stable=True)
    again = torch.zeros_like(ids, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ids.masked_fill(torch.zeros_like(again).scatter(1, places, again), -1)


def _packed(ids: Tensor, most: int) -> Tensor:
    """The first of a row that are no -1, at most so many, side by side; int64 (B, n)."""
    there = ids >= 0
    places = there.cumsum(dim=1) - 1
    there &= places < most
    width = min(most, int(there.sum(dim=1).max()) if len(ids) else 0)
    packed = torch.full((len(ids), width + 1), -1, dtype=ids.dtype, device=ids.device)
    # What is not kept goes to a place of its own.
    packed.scatter_(1, places.masked_fill(~there, width), ids.masked_fill(~there, -1))
    return packed[:, :width]


def open_automaton(
    retriever: Retriever,
    *,
    clusters: str | None = None,
    min_knns: int = 1,
    max_knns: int | None = None,
    reference: bool = False,
    device: torch.device | None = None,
) -> Automaton:
    """An automaton over the datastores that a retriever searches.

    Args:
        retriever: of datastores of one kind.
        clusters: name of the clusters whose entries share their pointers.
        min_knns, max_knns, reference: see :class:`Automaton`; by default the entries that are pointed to are at most k,
            for a language model's datastores 1024 or k, whichever is more.
        device: where pointers and clusters are kept; by default where the datastores are searched.

    Raises:
        DatastoreError: a datastore has no positions, or no such clusters.
    """
    stores, place = retriever.datastores, device or retriever.device
    continues = continuations(stores, place)
    members = None if clusters is None else Members([Clusters.load(store, clusters) for store in stores], place)
    plan = stores[0].plan
    least = _MAX_KNNS if plan is not None and plan.kind == LANGUAGE_MODEL else 0
    most = max_knns or max(least, retriever.k)
    return Automaton(retriever, continues, members, min_knns=min_knns, max_knns=most, reference=reference)


def continuations(stores: Sequence[Datastore], device: torch.device) -> Tensor:
    """Of the entries of several datastores as if they were one, whether the next is their next token, bool (N,).

    Raises:
        DatastoreError: a datastore does not record where its entries stood.
    """
    parts = []
    for store in stores:
        if store.continues is None:
            raise DatastoreError(
                f"{store.path} does not record where in the text its entries stood, so none points to the next, which "
                "--knn-retomaton follows: make one that does of it with `fairseq-knn convert`, or build it again with "
                "--knn-mode build_datastore"
            )
        parts.append(torch.from_numpy(store.continues))
    return torch.cat(parts).to(device)
