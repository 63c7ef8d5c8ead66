"""The batched automaton equals one that goes through its entries one by one, and the reference's numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.clustering import Clusters
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError
from fairseq_knn.index.build import build_index
from fairseq_knn.index.dropping import drop_keys
from fairseq_knn.retrieval import Automaton, Members, Retriever, continuations
from fairseq_knn.retrieval.automaton import without_repetitions
from tests.support import write_datastore
from tests.unit.retrieval import loops

CPU = torch.device("cpu")
D, TOKENS = 5, 6


def text(path: Path, entries: int = 120, seed: int = 0, *, tokens: int = TOKENS) -> Datastore:
    """A datastore of documents of uneven length with few tokens, so that pointers often lead on."""
    rng = np.random.default_rng(seed)
    documents = np.sort(rng.integers(0, entries // 9, entries))
    lengths = [10] * (entries // 10)
    return write_datastore(
        path, rng.normal(size=(entries, D)), rng.integers(0, tokens, entries), lengths, 3, documents=documents
    )


def sequences(batch: int, steps: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, steps, D, generator=generator)
    return query, torch.randint(0, TOKENS, (batch, steps), generator=generator)


def clusters_of(stores: list[Datastore], count: int, seed: int = 2) -> list[Clusters]:
    rng = np.random.default_rng(seed)
    return [
        Clusters("some", rng.integers(0, count, store.entries).astype(np.int32), count, {"method": "random"})
        for store in stores
    ]


def automaton(stores: list[Datastore], k: int = 4, members: Members | None = None, **settings: Any) -> Automaton:
    retriever = Retriever(stores, k, backend="torch", device="cpu")
    return Automaton(retriever, continuations(stores, CPU), members, **settings)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(("min_knns", "max_knns"), [(1, 50), (3, 50), (2, 3), (1, 1), (99, 7)])
@pytest.mark.parametrize("sizes", [(120,), (60, 90)])
def test_equals_the_loop(tmp_path: Path, sizes: tuple[int, ...], min_knns: int, max_knns: int, clustered: bool) -> None:
    stores = [text(tmp_path / str(i), size, i) for i, size in enumerate(sizes)]
    parts = clusters_of(stores, 11)
    members = Members(parts, CPU) if clustered else None
    walking = automaton(stores, 4, members, min_knns=min_knns, max_knns=max_knns)
    keys = np.concatenate([store.keys(0, store.entries) for store in stores])
    values = np.concatenate([store.values for store in stores]).tolist()
    continues = continuations(stores, CPU).tolist()
    cluster = np.concatenate([part.cluster + 11 * i for i, part in enumerate(parts)]) if clustered else None
    query, tokens = sequences(5, 9)
    walked = list(walking.walk(query, tokens, torch.ones(5, 9, dtype=torch.bool)))
    searches = 0
    for row in range(5):
        expected = loops.walk(
            keys, values, continues, query[row].numpy(), tokens[row].tolist(),
            k=4, min_knns=min_knns, max_knns=max_knns, cluster=cluster,
        )  # fmt: skip
        for step, (entries, distances, searched) in enumerate(expected):
            found = walked[step]
            there = found.ids[row] >= 0
            assert found.ids[row][there].tolist() == entries, (row, step)
            np.testing.assert_allclose(found.distances[row][there], distances, rtol=1e-5)
            assert found.values[row][there].tolist() == [values[entry] for entry in entries]
            assert torch.isinf(found.distances[row][~there]).all()
            searches += searched
    assert walking.statistics.steps == 45
    assert walking.statistics.searched == searches
    assert (walking.statistics.saved == 0) == (min_knns >= max_knns)


def test_a_hand_made_automaton(tmp_path: Path) -> None:
    """Two documents, "a b c" and "a b d"; entry i is the token that follows its key."""
    keys = np.array([[0.0], [1.0], [2.0], [0.1], [1.1], [2.1]])
    values = np.array([1, 2, 3, 1, 2, 4])
    store = write_datastore(tmp_path, keys, values, [3, 3], documents=np.array([0, 0, 0, 1, 1, 1]))
    walking = automaton([store], 2, min_knns=1, max_knns=10)
    query = torch.tensor([[[0.0], [1.0], [2.0], [0.0]]])
    tokens = torch.tensor([[1, 2, 3, 0]])
    steps = list(walking.walk(query, tokens, torch.ones(1, 4, dtype=torch.bool)))
    assert steps[0].ids.tolist() == [[0, 3]]  # searched
    assert steps[1].ids.tolist() == [[1, 4]]  # both pointed on
    assert steps[2].ids.tolist() == [[2, 5]]
    # "c" ends the first document and "d" was not emitted: nothing is pointed to, so there is a search.
    assert steps[3].ids.tolist() == [[0, 3]]
    assert (walking.statistics.steps, walking.statistics.searched) == (4, 2)


def test_rows_do_not_know_of_each_other(tmp_path: Path) -> None:
    stores = [text(tmp_path / "s")]
    members = Members(clusters_of(stores, 7), CPU)
    query, tokens = sequences(6, 8)
    wanted = torch.arange(8) < torch.tensor([8, 3, 8, 5, 1, 8]).unsqueeze(1)
    together = list(automaton(stores, 3, members, max_knns=9).walk(query, tokens, wanted))
    for row in range(6):
        own = automaton(stores, 3, members, max_knns=9)
        alone = list(own.walk(query[row : row + 1], tokens[row : row + 1], wanted[row : row + 1]))
        for step in range(8):
            pairs = [each.ids[i][each.ids[i] >= 0].tolist() for each, i in ((together[step], row), (alone[step], 0))]
            assert pairs[0] == pairs[1]
            assert bool(pairs[0]) == bool(wanted[row, step])


def test_steps_at_which_nothing_is_wanted(tmp_path: Path) -> None:
    """The context before the text that is scored: the walk begins behind it, with a search."""
    stores = [text(tmp_path / "s")]
    query, tokens = sequences(2, 5)
    wanted = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 1, 1, 0]]).bool()
    walking = automaton(stores, 3)
    steps = list(walking.walk(query, tokens, wanted))
    assert [bool(found.found.any()) for found in steps] == [False, False, True, True, False]
    assert all(found.ids.size(1) for found in steps)  # a combiner takes the nearest of them
    assert walking.statistics.steps == 4
    assert (
        steps[2].ids.tolist()
        == next(iter(automaton(stores, 3).walk(query[:, 2:], tokens[:, 2:], wanted[:, 2:]))).ids.tolist()
    )


def test_single_steps_follow_their_hypotheses(tmp_path: Path) -> None:
    """What beam search does: rows change places, some twice, between two steps."""
    stores = [text(tmp_path / "s")]
    query, tokens = sequences(4, 5)
    order = [torch.tensor(rows) for rows in ([2, 2, 0, 1], [3, 0, 0, 2], [1, 1, 1, 1], [0, 3, 2, 1])]
    walking = automaton(stores, 3, max_knns=20)
    everywhere = torch.ones(4, dtype=torch.bool)
    histories = [[row] for row in range(4)]  # of which row of every step a hypothesis consists
    before = walking.step(None, None, query[:, 0], everywhere)
    for step, rows in enumerate(order, start=1):
        histories = [[*histories[source], row] for row, source in enumerate(rows.tolist())]
        before = walking.step(before.select(rows), tokens[:, step - 1], query[:, step], everywhere)
    for row, history in enumerate(histories):
        path_query = torch.stack([query[source, step] for step, source in enumerate(history)])
        # The token of step t was chosen for the row that went on from it.
        path_tokens = torch.stack([tokens[history[step + 1], step] for step in range(4)])
        alone = list(
            automaton(stores, 3, max_knns=20).walk(
                path_query[None], torch.cat([path_tokens, tokens[:1, 0]])[None], torch.ones(1, 5, dtype=torch.bool)
            )
        )
        assert before.ids[row][before.ids[row] >= 0].tolist() == alone[-1].ids[0][alone[-1].ids[0] >= 0].tolist()


def test_no_entry_counts_twice_unless_the_reference_is_asked_for(tmp_path: Path) -> None:
    stores = [text(tmp_path / "s", tokens=2)]
    members = Members(clusters_of(stores, 4), CPU)
    query, tokens = sequences(3, 6)
    tokens = tokens % 2
    for reference in (False, True):
        walking = automaton(stores, 20, members, min_knns=999, max_knns=30, reference=reference)
        repeated = 0
        for found in walking.walk(query, tokens, torch.ones(3, 6, dtype=torch.bool)):
            for ids in found.ids:
                there = ids[ids >= 0]
                repeated += len(there) - len(there.unique())
        assert (repeated > 0) == reference


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "IVF4,PQ5x4", "IVF4,PQ5x4fsr,Refine(SQfp16)"])
def test_distances_of_pointers_are_those_of_a_search(tmp_path: Path, factory: str) -> None:
    """Also when the keys were dropped, and in the index's own arithmetic."""
    store = text(tmp_path / "s", 300)
    build_index(store, factory, device="cpu", nprobe=4, min_recall=0.0, report=lambda _: None)
    asked = torch.randn(7, D)
    for dropped in (False, True):
        if dropped:
            drop_keys(store)
            store = Datastore.load(store.path)
        retriever = Retriever(store, 5, backend="faiss", device="cpu")
        found = retriever.retrieve(asked)
        again = retriever.measure(asked, found.ids)
        torch.testing.assert_close(again, found.distances, rtol=1e-3, atol=1e-3)
        assert torch.isinf(retriever.measure(asked, torch.full((7, 2), -1))).all()


def test_recomputed_distances_are_exact_and_in_order(tmp_path: Path) -> None:
    store = text(tmp_path / "s", 300)
    build_index(store, "IVF4,PQ5x4", device="cpu", nprobe=4, min_recall=0.0, report=lambda _: None)
    asked = torch.randn(7, D)
    found = Retriever(store, 5, backend="faiss", device="cpu", recompute=True).retrieve(asked)
    keys = torch.from_numpy(store.keys(0, 300)).double()
    exact = (keys[found.ids] - asked.unsqueeze(1)).square().sum(-1)
    torch.testing.assert_close(found.distances.double(), exact, rtol=1e-5, atol=1e-6)
    assert (found.distances.diff(dim=1) >= 0).all()
    drop_keys(store)
    without = Retriever(Datastore.load(store.path), 5, backend="faiss", device="cpu", recompute=True)
    with pytest.raises(DatastoreError, match="were dropped"):
        without.retrieve(asked)


def test_repetitions() -> None:
    ids = torch.tensor([[5, 3, 5, -1, 3, 2], [-1, -1, 1, 1, 1, 0]])
    assert without_repetitions(ids).tolist() == [[5, 3, -1, -1, -1, 2], [-1, -1, 1, -1, -1, 0]]


def test_members_come_cluster_by_cluster(tmp_path: Path) -> None:
    store = write_datastore(tmp_path, np.eye(8), np.arange(8))
    (part,) = clusters_of([store], 3)
    part.cluster[:] = [0, 1, 1, 2, 0, 2, 1, 0]
    members = Members([part], CPU)
    # Cluster 1 is hit twice, then those of the nearer pointers.
    assert members.of(torch.tensor([[3, 6, 0, 1, -1]]), 99).tolist() == [[1, 2, 6, 3, 5, 0, 4, 7]]
    assert members.of(torch.tensor([[3, -1], [-1, -1]]), 99).tolist() == [[3, 5], [-1, -1]]
    assert members.of(torch.tensor([[0], [1]]), 2).tolist() == [[0, 4], [1, 2]]
    assert members.of(torch.empty((2, 0), dtype=torch.int64), 5).shape == (2, 0)
