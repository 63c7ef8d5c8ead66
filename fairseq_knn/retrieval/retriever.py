"""The k nearest entries of one datastore, or of several as if they were one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.index import open_backend, open_keys
from fairseq_knn.retrieval.neighbours import Neighbours


@dataclass
class SearchStatistics:
    """How often was searched, and how long it took.

    Args:
        searches: calls of :meth:`Retriever.retrieve` that searched anything.
        queries: rows searched.
        requested: rows asked for; the rest were masked or equal to the row before.
        seconds: wall-clock time of the searches (on a GPU: of launching them).
    """

    searches: int = 0
    queries: int = 0
    requested: int = 0
    seconds: float = 0.0

    @property
    def milliseconds_per_search(self) -> float:
        return 1000 * self.seconds / self.searches if self.searches else 0.0


class Retriever:
    """Searches datastores for the nearest keys of queries.

    Args:
        datastore: one datastore, or several of the same model, which are searched as one: the neighbours
            are the k nearest of all, and ids count through them in order.
        k: number of neighbours.
        backend: ``faiss``, ``torch`` (exact) or ``auto``.
        device: where keys, values and index live: ``cpu``, ``cuda`` or ``auto``.
        nprobe: how many lists of an inverted index are searched; ``None`` for what it was measured with.
        load: ``mmap`` (keys and index stay on disk, memory mapped) or ``ram``.
        with_keys: give the neighbours' keys too, for combiners that need them. They come from the GPU's memory if they
            fit there.

    Raises:
        ConfigurationError: k is below 1 or beyond the number of entries.
        DatastoreError: the datastores have keys of different dimensions.
        SearchIndexError: an index is needed and missing, stale or damaged.
    """

    def __init__(
        self,
        datastore: Datastore | Sequence[Datastore],
        k: int = 8,
        *,
        backend: str = "auto",
        device: str = "auto",
        nprobe: int | None = None,
        load: str = "mmap",
        with_keys: bool = False,
    ) -> None:
        self.datastores = [datastore] if isinstance(datastore, Datastore) else list(datastore)
        self.k = k
        self.entries = sum(store.entries for store in self.datastores)
        if not 1 <= k <= self.entries:
            raise ConfigurationError(
                f"k is {k}, but the datastore has {self.entries:,} entries: choose k between 1 and {self.entries:,}"
            )
        self.dimension = self.datastores[0].dimension
        for store in self.datastores:
            if store.dimension != self.dimension:
                raise DatastoreError(
                    f"{self.datastores[0].path} has keys of dimension {self.dimension}, {store.path} of dimension "
                    f"{store.dimension}: only datastores of the same model can be searched together"
                )
        self._backends = [
            open_backend(store, backend=backend, device=device, nprobe=nprobe, load=load) for store in self.datastores
        ]
        self._values = [
            torch.from_numpy(store.values).to(searcher.device)
            for store, searcher in zip(self.datastores, self._backends, strict=True)
        ]
        self._keys = [
            open_keys(store, searcher.device, resident=load == "ram")
            for store, searcher in zip(self.datastores, self._backends, strict=True)
            if with_keys
        ]
        self.statistics = SearchStatistics()

    @torch.no_grad()
    def retrieve(self, query: Tensor, mask: Tensor | None = None) -> Neighbours:
        """Find the neighbours of queries.

        Args:
            query: (..., d), any float dtype, any device.
            mask: bool (...,): which rows to search; the others get no neighbours.

        Returns:
            neighbours of shape (..., k) on the query's device.

        Raises:
            DatastoreError: the queries have another dimension than the keys.
        """
        if query.size(-1) != self.dimension:
            raise DatastoreError(
                f"the model's hidden states have dimension {query.size(-1)}, the keys of {self.datastores[0].path} "
                f"dimension {self.dimension}: use the model and --knn-key the datastore was built with"
            )
        shape = query.shape[:-1]
        rows = query.reshape(-1, self.dimension)
        self.statistics.requested += len(rows)
        inverse = None
        if mask is not None or not query.is_cuda:
            # On a GPU finding the rows would cost a round trip to the host, more than it saves.
            wanted, inverse = _distinct_rows(rows, None if mask is None else mask.reshape(-1))
            rows = rows[wanted]
        if len(rows) == 0:
            return Neighbours.none(shape, self.k, query.device)
        started = time.perf_counter()
        neighbours = self._search(rows)
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.searches += 1
        self.statistics.queries += len(rows)
        if inverse is not None:
            found = neighbours.select(inverse.clamp(min=0))
            if mask is not None:
                empty = Neighbours.none((len(inverse),), self.k, query.device)
                skipped = (inverse < 0).unsqueeze(-1)
                found = Neighbours(
                    torch.where(skipped, empty.distances, found.distances),
                    torch.where(skipped, empty.ids, found.ids),
                    torch.where(skipped, empty.values, found.values),
                )
            neighbours = found
        distances, ids, values = (
            t.reshape(*shape, self.k) for t in (neighbours.distances, neighbours.ids, neighbours.values)
        )
        return Neighbours(distances, ids, values, self._gather(ids) if self._keys else None)

    def _gather(self, ids: Tensor) -> Tensor:
        """Keys of the neighbours, ids.shape + (d,), on their device; zeros where there is no neighbour."""
        keys = torch.zeros((*ids.shape, self.dimension), dtype=torch.float16, device=ids.device)
        offset = 0
        for store, stored in zip(self.datastores, self._keys, strict=True):
            own = (ids >= offset) & (ids < offset + store.entries)
            keys[own] = stored.gather(ids[own] - offset).to(keys)
            offset += store.entries
        return keys

    def _search(self, rows: Tensor) -> Neighbours:
        results = []
        offset = 0
        for store, searcher, values in zip(self.datastores, self._backends, self._values, strict=True):
            distances, ids = searcher.search(rows, min(self.k, store.entries))
            found = ids >= 0
            tokens = values[ids.clamp(min=0).to(values.device)].to(ids.device, torch.int64)
            results.append(Neighbours(distances, torch.where(found, ids + offset, ids), torch.where(found, tokens, 0)))
            offset += store.entries
        if len(results) == 1:
            return results[0]
        distances, order = torch.cat([r.distances for r in results], -1).sort(dim=-1, stable=True)
        order = order[:, : self.k]
        return Neighbours(
            distances[:, : self.k],
            torch.cat([r.ids for r in results], -1).gather(-1, order),
            torch.cat([r.values for r in results], -1).gather(-1, order),
        )


def _distinct_rows(rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows to search, and for every row which of them answers it (-1: none).

    Equal rows that follow each other are searched once: at the first step of beam search all beams of a
    sentence are the same.
    """
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    keep[1:] = (rows[1:] != rows[:-1]).any(dim=-1)
    if mask is not None:
        # The first wanted row after a masked one is searched even when it equals the masked one.
        keep[1:] |= ~mask[:-1]
        keep &= mask
    inverse = keep.cumsum(0) - 1
    if mask is not None:
        inverse = inverse.masked_fill(~mask, -1)
    return keep.nonzero().squeeze(-1), inverse
