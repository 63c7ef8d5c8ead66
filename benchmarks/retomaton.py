"""RetoMaton over text, batched and token by token, as a line of JSON.

python -m benchmarks.retomaton STORE QUERIES [--clusters NAME] [--sequences 64] [--tokens 32] [--k 1024]

STORE has an index and is consulted for the tokens of QUERIES, a datastore of text that STORE does not hold. *batched*
is what this package does. *one by one* is the algorithm of the authors' two programs: one query at a time, a vector for
every single pointer, and a distribution over the whole vocabulary for every token. Both search the same index with the
same effort, count as the authors do, and are checked to give the same probabilities.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from fairseq_knn.clustering import Clusters
from fairseq_knn.combiners import VanillaCombiner, mix_target, target_mass
from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.datastore.layout import index_path
from fairseq_knn.index.faiss_files import read_index
from fairseq_knn.index.record import IndexRecord
from fairseq_knn.retrieval import Automaton, Retriever, open_automaton
from fairseq_knn.retrieval.automaton import AutomatonStatistics

_WEIGHT, _TEMPERATURE = 0.25, 1.0
_CLOSE, _MOST = 1e-2, 0.98  # nats, and the share of the tokens that must be so close


class OneByOne:
    """The authors' algorithm.

    Args:
        store: with an index.
        vocabulary: size of the distribution.
        clusters: whose entries share their pointers, or ``None``.
        k, min_knns, max_knns: as there.
    """

    def __init__(
        self, store: Datastore, vocabulary: int, clusters: Clusters | None, k: int, min_knns: int, max_knns: int
    ) -> None:
        self._index = read_index(index_path(store.path), mapped=True)
        record = IndexRecord.load(store)
        lists = faiss.try_extract_index_ivf(self._index)
        if lists is not None:
            lists.nprobe = record.nprobe
            if not isinstance(self._index, faiss.IndexRefine):
                lists.make_direct_map()
        if isinstance(self._index, faiss.IndexRefine):
            self._index.k_factor = max((record.k_factor or 1) * 32 / k, 4)
        self._values = torch.from_numpy(store.values).long()
        self._entries, self._vocabulary = store.entries, vocabulary
        self._k, self._min, self._max = k, min_knns, max_knns
        self._vector = np.vectorize(lambda entry: self._index.reconstruct(int(entry)), otypes=[object])
        self._clusters = clusters
        self.searched = 0

    def _extended(self, pointers: Tensor) -> Tensor:
        if self._clusters is None or not 0 < len(pointers) < self._max:
            return pointers[: self._max]
        hit = self._clusters.cluster[pointers.numpy()]
        numbers, first, counts = np.unique(hit, return_index=True, return_counts=True)
        ordered = numbers[np.lexsort((first, -counts))]
        offsets = self._clusters.offsets
        members = np.concatenate([self._clusters.members[offsets[c] : offsets[c + 1]] for c in ordered])
        return torch.cat([pointers, torch.from_numpy(members).long()])[: self._max]

    def sequence(self, queries: Tensor, tokens: Tensor, log_probs: Tensor) -> Tensor:
        """Log-probabilities of the tokens (T,) of one sequence, from its queries (T, d) and the model's own (T,)."""
        current = torch.empty(0, dtype=torch.int64)
        result = []
        for query, token, own in zip(queries, tokens, log_probs, strict=True):
            pointers = self._extended(current + 1)
            entries, distances = pointers, torch.empty(0)
            if len(pointers):
                vectors = torch.from_numpy(np.stack(self._vector(pointers.numpy())))
                distances = ((query - vectors) ** 2).sum(dim=1)
            if len(current) < self._min:
                self.searched += 1
                found, ids = self._index.search(query[None].numpy(), self._k)
                entries = torch.cat([torch.from_numpy(ids[0]), entries])
                distances = torch.cat([torch.from_numpy(found[0]), distances])
            values = self._values[entries]
            probs = torch.zeros(self._vocabulary).scatter_add(0, values, (-distances / _TEMPERATURE).softmax(dim=0))
            mixed = torch.logaddexp(own + np.log(1 - _WEIGHT), probs.log() + np.log(_WEIGHT))
            result.append(mixed[token])
            right = (values == token) & (entries < self._entries - 1)
            current = entries[right][distances[right].argsort()]
        return torch.stack(result)


def batched(walking: Automaton, queries: Tensor, tokens: Tensor, log_probs: Tensor) -> tuple[Tensor, float, float]:
    """The same of many sequences (B, T) at once; also the seconds, and the fraction of saved searches."""
    walking.statistics = AutomatonStatistics()
    combiner = VanillaCombiner(_WEIGHT, _TEMPERATURE)
    started = time.perf_counter()
    result = []
    everywhere = torch.ones(tokens.shape, dtype=torch.bool)
    for step, neighbours in enumerate(walking.walk(queries, tokens, everywhere)):
        mixture = combiner.mixture(queries[:, step], neighbours, queries.new_empty(0))
        mass = target_mass(neighbours.found & (neighbours.values == tokens[:, step : step + 1]), mixture)
        result.append(mix_target(log_probs[:, step], mass, mixture.weight[:, 0]))
    seconds = time.perf_counter() - started
    return torch.stack(result, dim=1), seconds, walking.statistics.saved


def sequences(store: ShardedDatastore, number: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first *length* tokens of *number* blocks: queries, tokens and the model's log-probabilities."""
    starts = np.flatnonzero(store.positions == 0)
    long = np.append(starts[1:], store.entries) - starts >= length
    rows = starts[long][:number, None] + np.arange(length)
    assert store.log_probs is not None
    keys = store.gather_keys(rows.reshape(-1)).astype(np.float32)
    return (
        torch.from_numpy(keys).view(*rows.shape, -1),
        torch.from_numpy(store.values[rows]).long(),
        torch.from_numpy(store.log_probs[rows]),
    )


def measure(store: Datastore, asked: ShardedDatastore, args: argparse.Namespace) -> dict[str, Any]:
    queries, tokens, log_probs = sequences(asked, args.sequences, args.tokens)
    walking = open_automaton(
        Retriever(store, args.k, backend="faiss", device="cpu"),
        clusters=args.clusters,
        min_knns=args.min_knns,
        max_knns=args.max_knns,
        reference=True,
    )
    batched(walking, queries, tokens, log_probs)  # reads what is mapped
    mine, seconds, saved = batched(walking, queries, tokens, log_probs)
    few = min(len(tokens), args.reference_sequences)
    clusters = None if args.clusters is None else Clusters.load(store, args.clusters)
    reference = OneByOne(store, asked.plan.vocabulary_size, clusters, args.k, args.min_knns, args.max_knns)
    reference.sequence(queries[0], tokens[0], log_probs[0])
    started = time.perf_counter()
    theirs = torch.stack([reference.sequence(queries[i], tokens[i], log_probs[i]) for i in range(few)])
    their_seconds = time.perf_counter() - started
    close = float(((mine[:few] - theirs).abs() < _CLOSE).float().mean())
    assert close > _MOST, f"only {close:.3f} of the probabilities are equal"
    rates = tokens.numel() / seconds, theirs.numel() / their_seconds
    return {
        "entries": store.entries,
        "dimension": store.dimension,
        "index": IndexRecord.load(store).settings.factory,
        "sequences": len(tokens),
        "k": args.k,
        "min_knns": args.min_knns,
        "max_knns": args.max_knns,
        "clusters": None if clusters is None else clusters.count,
        "saved": round(saved, 3),
        "batched_tokens_per_s": round(rates[0]),
        "one_by_one_tokens_per_s": round(rates[1]),
        "ratio": round(rates[0] / rates[1], 1),
        "equal": round(close, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("queries", type=Path, metavar="QUERIES")
    parser.add_argument("--sequences", type=int, default=64, help="side by side (default: %(default)s)")
    parser.add_argument("--reference-sequences", type=int, default=8, help="one after the other (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of each (default: %(default)s)")
    parser.add_argument("--clusters", metavar="NAME")
    parser.add_argument("--k", type=int, default=1024)
    parser.add_argument("--min-knns", type=int, default=1)
    parser.add_argument("--max-knns", type=int, default=1024)
    args = parser.parse_args()
    store, asked = Datastore.load(args.store), ShardedDatastore.open(args.queries)
    print(json.dumps(measure(store, asked, args)))


if __name__ == "__main__":
    main()
