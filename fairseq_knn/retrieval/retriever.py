"""The k nearest entries of one datastore, or of several as if they were one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.index import open_backend, open_keys
from fairseq_knn.retrieval.lookup import Lookup, gather_resident, open_log_probs
from fairseq_knn.retrieval.neighbours import Neighbours

_MEASURED_BYTES = 16 << 20  # differences of queries and entries that are computed at a time


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
        gpus: how many GPUs hold keys or index together, the model's and others, or ``all`` that torch sees; values are
            on the model's.
        nprobe: how many lists of an inverted index are searched; ``None`` for what it was measured with.
        load: ``mmap`` (keys and index stay on disk, memory mapped) or ``ram``.
        with_keys: give the neighbours' keys too, for combiners that need them. They come from the GPU's memory if they
            fit there.
        recompute: compute the distances of what was found again, from the keys: exact ones where an index has short
            codes alone. The neighbours are in their order then.
        with_key_log_probs: give the model's log-probability of every neighbour's token in its own place too, if all
            datastores hold them. They come from the GPU's memory, or, memory mapped, from disk.

    Attributes:
        has_key_log_probs: whether neighbours come with these log-probabilities.

    Raises:
        ConfigurationError: k is below 1 or beyond the number of entries, or there are not so many GPUs.
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
        gpus: int | str = 1,
        nprobe: int | None = None,
        load: str = "mmap",
        with_keys: bool = False,
        with_key_log_probs: bool = False,
        recompute: bool = False,
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
            open_backend(store, backend=backend, device=device, gpus=gpus, nprobe=nprobe, load=load)
            for store in self.datastores
        ]
        opened = list(zip(self.datastores, [searcher.device for searcher in self._backends], strict=True))
        entries = [store.entries for store in self.datastores]
        values = [torch.from_numpy(store.values).to(place) for store, place in opened]
        self._values = Lookup(entries, [gather_resident(each) for each in values], torch.int64)
        self._keys = self._log_probs = None
        self._recompute = recompute
        vectors = [searcher.vectors for searcher in self._backends]
        if with_keys or recompute:
            keys = [
                searcher.vectors if searcher.keeps_keys else open_keys(store, place, resident=load == "ram").gather
                for searcher, (store, place) in zip(self._backends, opened, strict=True)
            ]
            vectors = keys if recompute else vectors
            if with_keys:
                self._keys = Lookup(entries, keys, torch.float16, (self.dimension,))
        # One datastore needs no looking up which of several an entry is in.
        several = Lookup(entries, vectors, torch.float32, (self.dimension,))
        self._vectors: Callable[[Tensor], Tensor] = vectors[0] if len(vectors) == 1 else several
        self.has_key_log_probs = with_key_log_probs and all(store.log_probs is not None for store in self.datastores)
        if self.has_key_log_probs:
            log_probs = [open_log_probs(store, place, resident=load == "ram") for store, place in opened]
            self._log_probs = Lookup(entries, log_probs, torch.float32)
        self.statistics = SearchStatistics()

    @property
    def device(self) -> torch.device:
        """Where the first datastore is searched, and what belongs to its entries is kept."""
        return self._backends[0].device

    @torch.no_grad()
    def retrieve(self, query: Tensor, mask: Tensor | None = None, exclude: Tensor | None = None) -> Neighbours:
        """Find the neighbours of queries.

        Args:
            query: (..., d), any float dtype, any device.
            mask: bool (...,): which rows to search; the others get no neighbours.
            exclude: int64 (...): the id of an entry that is not to be among the row's neighbours, -1 for none. The
                k nearest of the others are found, one fewer if there are only k entries.

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
        found = self._search_wanted(rows, None if mask is None else mask.reshape(-1), self.k + (exclude is not None))
        if exclude is not None:
            found = found.without(exclude.reshape(-1).to(found.ids.device))
        distances, ids, values = (t.reshape(*shape, self.k) for t in (found.distances, found.ids, found.values))
        return Neighbours(
            distances,
            ids,
            values,
            None if self._keys is None else self._keys(ids),
            None if self._log_probs is None else self._log_probs(ids),
        )

    def recall(self, neighbours: Neighbours) -> Neighbours:
        """Neighbours that were found before, from their ids and distances: all that :meth:`retrieve` gives of them."""
        ids = neighbours.ids
        return Neighbours(
            neighbours.distances,
            ids,
            self._values(ids),
            None if self._keys is None else self._keys(ids),
            None if self._log_probs is None else self._log_probs(ids),
        )

    def measure(self, query: Tensor, ids: Tensor) -> Tensor:
        """Squared distances of queries to entries that were not searched for, as a search would give them.

        Args:
            query: (n, d), any float dtype.
            ids: of entries, int64 (n, m); -1 for none.

        Returns:
            float32 (n, m), on the device of the queries; +inf where there is no entry.
        """
        distances = torch.full(ids.shape, torch.inf, device=query.device)
        rows, columns = (ids >= 0).nonzero(as_tuple=True)
        block = max(1, _MEASURED_BYTES // (4 * self.dimension))
        for start in range(0, len(rows), block):
            part = rows[start : start + block], columns[start : start + block]
            differences = self._vectors(ids[part]).to(query.device, torch.float32).sub_(query[part[0]].float())
            distances[part] = torch.linalg.vector_norm(differences, dim=-1).square_()
        return distances

    def values_of(self, ids: Tensor) -> Tensor:
        """Target tokens of the given entries, int64 (...), on their device; 0 where the id is -1."""
        return self._values(ids)

    def gather(self, ids: Tensor) -> Tensor:
        """Keys of the given entries, float16 (..., d), on their device; zeros where the id is -1.

        Raises:
            ValueError: the retriever was made without ``with_keys``.
        """
        if self._keys is None:
            raise ValueError("the retriever gives keys only if it is made with with_keys=True")
        return self._keys(ids)

    def key_log_probs_of(self, ids: Tensor) -> Tensor:
        """Log-probabilities of the given entries' tokens in their own places, float32 (...), on their device.

        Where the id is -1, they are 0.

        Raises:
            ValueError: :attr:`has_key_log_probs` is off.
        """
        if self._log_probs is None:
            raise ValueError(
                "the retriever gives log-probabilities only if it is made with with_key_log_probs=True and all "
                "datastores hold them"
            )
        return self._log_probs(ids)

    def _search_wanted(self, rows: Tensor, mask: Tensor | None, k: int) -> Neighbours:
        """The k nearest of every row that is wanted, (n, k), and none of the others."""
        self.statistics.requested += len(rows)
        inverse = None
        if mask is not None or not rows.is_cuda:
            # On a GPU finding the rows would cost a round trip to the host, more than it saves.
            wanted, inverse = _distinct_rows(rows, mask)
            rows = rows[wanted]
        if len(rows) == 0:
            return Neighbours.none((0 if inverse is None else len(inverse),), k, rows.device)
        started = time.perf_counter()
        found = self._search(rows, k)
        self.statistics.seconds += time.perf_counter() - started
        self.statistics.searches += 1
        self.statistics.queries += len(rows)
        if inverse is None:
            return found
        found = found.select(inverse.clamp(min=0))
        skipped = (inverse < 0).unsqueeze(-1)
        return Neighbours(
            found.distances.masked_fill(skipped, torch.inf),
            found.ids.masked_fill(skipped, -1),
            found.values.masked_fill(skipped, 0),
        )

    def _search(self, rows: Tensor, k: int) -> Neighbours:
        """The k nearest of all datastores, (n, k); the last are missing if there are fewer entries."""
        all_distances, all_ids = [], []
        offset = 0
        for store, searcher in zip(self.datastores, self._backends, strict=True):
            distances, ids = searcher.search(rows, min(k, store.entries))
            all_distances.append(distances)
            all_ids.append(torch.where(ids >= 0, ids + offset, ids))
            offset += store.entries
        distances, ids = torch.cat(all_distances, dim=-1), torch.cat(all_ids, dim=-1)
        if self._recompute:
            distances = self.measure(rows, ids)
        if len(self.datastores) > 1 or self._recompute:
            distances, order = distances.sort(dim=-1, stable=True)
            ids = ids.gather(-1, order)
        missing = max(0, k - ids.size(-1))
        distances = nn.functional.pad(distances[:, :k], (0, missing), value=torch.inf)
        ids = nn.functional.pad(ids[:, :k], (0, missing), value=-1)
        return Neighbours(distances, ids, self._values(ids))


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
