"""Several datastores are searched as one, and what is not searched has no neighbours."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.retrieval import Neighbours, Retriever, retriever
from tests.support import write_datastore

D = 6


def stores(path: Path, *sizes: int, seed: int = 0) -> tuple[list[Datastore], np.ndarray, np.ndarray]:
    """Datastores of the given sizes, and their keys and values one after the other."""
    rng = np.random.default_rng(seed)
    keys = [rng.normal(size=(size, D)).astype(np.float16) for size in sizes]
    values = [rng.integers(1, 1000, size) for size in sizes]
    made = [
        write_datastore(path / str(i), key, value, shard_sentences=2)
        for i, (key, value) in enumerate(zip(keys, values, strict=True))
    ]
    return made, np.concatenate(keys), np.concatenate(values)


def brute_force(keys: np.ndarray, queries: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and ids of the k nearest, in float64; ties by id."""
    differences = queries.reshape(-1, 1, D).double().numpy() - keys.astype(np.float64)
    distances = np.square(differences).sum(-1)
    order = np.argsort(distances, axis=-1, kind="stable")[:, :k]
    shape = (*queries.shape[:-1], k)
    return np.take_along_axis(distances, order, 1).reshape(shape), order.reshape(shape)


def assert_nearest(found: Neighbours, keys: np.ndarray, values: np.ndarray, queries: Tensor, k: int) -> None:
    distances, ids = brute_force(keys, queries, k)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.values, values[ids])
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
    assert found.distances.dtype == torch.float32
    assert found.ids.dtype == found.values.dtype == torch.int64


def queries(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def search(datastores: Datastore | list[Datastore], k: int) -> Retriever:
    return Retriever(datastores, k, backend="torch", device="cpu")


@pytest.mark.parametrize("sizes", [(50,), (30, 40), (3, 40, 1, 25)])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 1, 3), ()])
def test_datastores_are_searched_as_one(tmp_path: Path, sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    datastores, keys, values = stores(tmp_path, *sizes)
    asked = queries(*shape)
    for k in (1, 5, 20):  # more than some of them hold
        assert_nearest(search(datastores, k).retrieve(asked), keys, values, asked, k)


def test_every_entry_of_all_datastores(tmp_path: Path) -> None:
    datastores, keys, values = stores(tmp_path, 4, 9, 2)
    asked = queries(3)
    assert_nearest(search(datastores, 15).retrieve(asked), keys, values, asked, 15)


def test_equal_keys_in_several_datastores(tmp_path: Path) -> None:
    keys = np.repeat(np.eye(3, D, dtype=np.float16), 2, axis=0)
    made = [write_datastore(tmp_path / str(i), keys, np.arange(6) + 10 * i) for i in range(3)]
    found = search(made, 6).retrieve(torch.eye(3, D))
    assert found.ids[1].tolist() == [2, 3, 8, 9, 14, 15]
    assert found.values[1].tolist() == [2, 3, 12, 13, 22, 23]
    assert not found.distances.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_queries_of_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    datastores, keys, values = stores(tmp_path, 20)
    asked = queries(4).to(dtype)
    assert_nearest(search(datastores, 3).retrieve(asked), keys, values, asked, 3)


def test_queries_that_need_a_gradient_or_are_strided(tmp_path: Path) -> None:
    datastores, keys, values = stores(tmp_path, 20)
    asked = queries(4, 3).requires_grad_().transpose(0, 1)
    found = search(datastores, 3).retrieve(asked)
    assert not found.distances.requires_grad
    assert_nearest(found, keys, values, asked.detach(), 3)


@pytest.mark.parametrize("seed", range(6))
def test_masked_rows_have_no_neighbours_and_the_others_their_own(tmp_path: Path, seed: int) -> None:
    datastores, keys, values = stores(tmp_path, 15, 10)
    generator = torch.Generator().manual_seed(seed)
    # Few different queries, so that equal ones follow each other, also across masked ones.
    asked = queries(3)[torch.randint(0, 3, (5, 6), generator=generator)]
    mask = torch.rand(5, 6, generator=generator) < (0.2, 0.5, 0.8)[seed % 3]
    found = search(datastores, 4).retrieve(asked, mask)
    distances, ids = brute_force(keys, asked, 4)
    np.testing.assert_array_equal(found.found, mask[..., None].expand(5, 6, 4))
    np.testing.assert_array_equal(found.ids[mask], ids[mask])
    np.testing.assert_array_equal(found.values[mask], values[ids[mask]])
    np.testing.assert_allclose(found.distances[mask], distances[mask], rtol=1e-5)
    assert torch.isinf(found.distances[~mask]).all()
    assert (found.ids[~mask] == -1).all()
    assert (found.values[~mask] == 0).all()


def test_equal_queries_in_a_row_are_searched_once(tmp_path: Path) -> None:
    datastores, keys, values = stores(tmp_path, 20)
    asked = queries(3)[torch.tensor([0, 0, 0, 1, 1, 0, 2, 2])]
    one = search(datastores, 2)
    assert_nearest(one.retrieve(asked), keys, values, asked, 2)
    assert (one.statistics.requested, one.statistics.queries, one.statistics.searches) == (8, 4, 1)
    one.retrieve(asked, torch.tensor([1, 0, 1, 0, 0, 1, 1, 1]).bool())
    # Rows 0 and 2 are equal, but not neighbours among those that are wanted.
    assert (one.statistics.requested, one.statistics.queries, one.statistics.searches) == (16, 8, 2)
    assert one.statistics.milliseconds_per_search > 0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_batch(tmp_path: Path, shape: tuple[int, ...]) -> None:
    datastores, _, _ = stores(tmp_path, 5, 6)
    one = search(datastores, 3)
    for mask in (None, torch.ones(shape, dtype=torch.bool)):
        found = one.retrieve(queries(*shape), mask)
        assert found.distances.shape == found.ids.shape == found.values.shape == (*shape, 3)
    assert one.statistics.searches == 0
    assert one.statistics.milliseconds_per_search == 0


def test_everything_masked(tmp_path: Path) -> None:
    datastores, _, _ = stores(tmp_path, 5)
    one = search(datastores, 3)
    found = one.retrieve(queries(2, 4), torch.zeros(2, 4, dtype=torch.bool))
    assert found.ids.shape == (2, 4, 3)
    assert not found.found.any()
    assert (one.statistics.requested, one.statistics.queries) == (8, 0)


def test_query_that_is_no_number_finds_nothing(tmp_path: Path) -> None:
    datastores, keys, values = stores(tmp_path, 9, 9)
    asked = queries(3)
    asked[1, 2] = torch.nan
    found = search(datastores, 4).retrieve(asked)
    assert not found.found[1].any()
    assert (found.values[1] == 0).all()
    assert_nearest(found.select(torch.tensor([0, 2])), keys, values, asked[[0, 2]], 4)


@pytest.mark.parametrize(("k", "fits"), [(-1, False), (0, False), (1, True), (11, True), (12, False)])
def test_bounds_of_k(tmp_path: Path, k: int, fits: bool) -> None:
    datastores, _, _ = stores(tmp_path, 5, 6)
    if fits:
        assert search(datastores, k).retrieve(queries(2)).found.all()
    else:
        with pytest.raises(ConfigurationError, match=f"k is {k}, but the datastore has 11 entries: choose k between"):
            search(datastores, k)


def test_datastores_of_different_dimensions(tmp_path: Path) -> None:
    one = write_datastore(tmp_path / "one", np.eye(4), np.arange(4))
    other = write_datastore(tmp_path / "other", np.eye(5), np.arange(5))
    with pytest.raises(DatastoreError, match=r"/one has keys of dimension 4, .*/other of dimension 5: only"):
        search([one, other], 2)


def test_queries_of_another_dimension(tmp_path: Path) -> None:
    datastores, _, _ = stores(tmp_path, 5)
    with pytest.raises(DatastoreError, match=r"states have dimension 7, the keys of .* dimension 6: use the model"):
        search(datastores, 2).retrieve(torch.zeros(3, 7))


class Patchy(SearchBackend):
    """Finds the first of its entries for even rows and nothing else, as an inverted index may."""

    def __init__(self, datastore: Datastore) -> None:
        self.entries, self.dimension, self.device = datastore.entries, datastore.dimension, torch.device("cpu")

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        found = Neighbours.none((len(queries),), k, self.device)
        found.distances[::2, 0], found.ids[::2, 0] = 1.5, 0
        return found.distances, found.ids

    def vectors(self, ids: Tensor) -> Tensor:
        return torch.zeros((len(ids), self.dimension))


def test_missing_neighbours_carry_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever, "open_backend", lambda store, **_: Patchy(store))
    datastores, _, values = stores(tmp_path, 1, 6)
    alone = Retriever(datastores[1], 3).retrieve(queries(4))
    assert alone.ids.tolist() == [[0, -1, -1], [-1, -1, -1]] * 2
    assert alone.values.tolist() == [[values[1], 0, 0], [0, 0, 0]] * 2
    both = Retriever(datastores, 3).retrieve(queries(4))
    assert both.ids.tolist() == [[0, 1, -1], [-1, -1, -1]] * 2
    assert both.values.tolist() == [[values[0], values[1], 0], [0, 0, 0]] * 2
    assert torch.isinf(both.distances[~both.found]).all()


def test_selected_neighbours() -> None:
    ids = torch.arange(24).view(2, 4, 3)
    given = Neighbours(ids.float(), ids, ids + 100)
    rows = torch.tensor([[7, 0], [3, 3]])
    chosen = given.select(rows)
    assert chosen.ids.tolist() == [[[21, 22, 23], [0, 1, 2]], [[9, 10, 11], [9, 10, 11]]]
    assert torch.equal(chosen.values, chosen.ids + 100)
    assert torch.equal(chosen.distances, chosen.ids.float())
    assert given.select(torch.tensor([], dtype=torch.int64)).ids.shape == (0, 3)


# Entries that must not be found.


def assert_nearest_others(
    found: Neighbours, keys: np.ndarray, values: np.ndarray, asked: Tensor, excluded: Tensor, k: int
) -> None:
    """Against a search through all entries but the excluded one."""
    flat = zip(
        asked.reshape(-1, D),
        excluded.reshape(-1).tolist(),
        *(t.reshape(-1, k) for t in (found.ids, found.values, found.distances)),
        strict=True,
    )
    for query, entry, ids, tokens, distances in flat:
        others = np.array([i for i in range(len(keys)) if i != entry])
        expected, order = brute_force(keys[others], query, min(k, len(others)))
        missing = k - len(order)
        assert ids.tolist() == [*others[order].tolist(), *[-1] * missing]
        assert tokens.tolist() == [*values[others[order]].tolist(), *[0] * missing]
        np.testing.assert_allclose(distances, [*expected, *[np.inf] * missing], rtol=1e-5)


@pytest.mark.parametrize("sizes", [(30,), (12, 18), (1, 20, 2, 7)])
@pytest.mark.parametrize("k", [1, 4, 29, 30])
def test_excluded_entries(tmp_path: Path, sizes: tuple[int, ...], k: int) -> None:
    datastores, keys, values = stores(tmp_path, *sizes)
    asked = queries(4, 8)
    _, nearest = brute_force(keys, asked, 30)
    generator = torch.Generator().manual_seed(0)
    # Near and far ones, and in every fifth place none.
    ranks = torch.randint(0, 30, (4, 8), generator=generator) // torch.tensor([1, 1, 1, 1, 15, 15, 30, 30])
    excluded = torch.from_numpy(nearest).gather(-1, ranks.unsqueeze(-1)).squeeze(-1)
    excluded.view(-1)[::5] = -1
    found = search(datastores, k).retrieve(asked, exclude=excluded)
    assert found.distances.shape == (4, 8, k)
    assert_nearest_others(found, keys, values, asked, excluded, k)
    unmasked = search(datastores, k).retrieve(asked, exclude=torch.full((4, 8), -1))
    assert_nearest(unmasked, keys, values, asked, k)


def test_an_entry_is_excluded_by_identity_not_by_its_key(tmp_path: Path) -> None:
    keys = np.repeat(np.eye(3, D, dtype=np.float16), 3, axis=0)
    made = [write_datastore(tmp_path / str(i), keys, np.arange(1, 10) + 10 * i) for i in range(2)]
    asked = torch.eye(3, D)[[0, 0, 0, 1, 1]]  # equal ones are searched together
    excluded = torch.tensor([0, 11, -1, 4, 0])
    one = search(made, 5)
    found = one.retrieve(asked, exclude=excluded)
    assert found.ids.tolist() == [
        [1, 2, 9, 10, 11],
        [0, 1, 2, 9, 10],
        [0, 1, 2, 9, 10],
        [3, 5, 12, 13, 14],
        [3, 4, 5, 12, 13],
    ]
    assert not found.distances.any()
    assert (one.statistics.requested, one.statistics.queries) == (5, 2)


@pytest.mark.parametrize("seed", range(6))
def test_excluded_entries_of_rows_of_which_some_are_masked(tmp_path: Path, seed: int) -> None:
    datastores, keys, values = stores(tmp_path, 15, 10)
    generator = torch.Generator().manual_seed(seed)
    asked = queries(3)[torch.randint(0, 3, (5, 6), generator=generator)]
    mask = torch.rand(5, 6, generator=generator) < (0.2, 0.5, 0.8)[seed % 3]
    _, nearest = brute_force(keys, asked, 5)
    ranks = torch.randint(0, 5, (5, 6, 1), generator=generator)
    excluded = torch.from_numpy(nearest).gather(-1, ranks).squeeze(-1)
    found = search(datastores, 4).retrieve(asked, mask, excluded)
    chosen = Neighbours(found.distances[mask], found.ids[mask], found.values[mask])
    assert_nearest_others(chosen, keys, values, asked[mask], excluded[mask], 4)
    assert torch.isinf(found.distances[~mask]).all()
    assert (found.ids[~mask] == -1).all()
    assert (found.values[~mask] == 0).all()


def test_exclusion_where_neighbours_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever, "open_backend", lambda store, **_: Patchy(store))
    datastores, _, _ = stores(tmp_path, 1, 6)
    found = Retriever(datastores, 2).retrieve(queries(4), exclude=torch.tensor([0, 0, -1, -1]))
    assert found.ids.tolist() == [[1, -1], [-1, -1], [0, 1], [-1, -1]]
    assert torch.isinf(found.distances[~found.found]).all()


# What else is known of the neighbours.


def with_log_probs(path: Path, *sizes: int) -> tuple[list[Datastore], np.ndarray, np.ndarray, np.ndarray]:
    """Datastores, and their keys, values and log-probabilities one after the other."""
    made, keys, values = stores(path / "plain", *sizes)
    log_probs = -np.random.default_rng(5).exponential(size=len(keys)).astype(np.float32)
    starts = np.cumsum([0, *sizes])
    for number, (start, stop) in enumerate(pairwise(starts)):
        own = slice(start, stop)
        made[number] = write_datastore(path / str(number), keys[own], values[own], None, 1, log_probs=log_probs[own])
    return made, keys, values, log_probs


@pytest.mark.parametrize("load", ["mmap", "ram"])
@pytest.mark.parametrize("sizes", [(50,), (20, 1, 29)])
def test_keys_and_log_probabilities_come_along(tmp_path: Path, sizes: tuple[int, ...], load: str) -> None:
    datastores, keys, _, log_probs = with_log_probs(tmp_path, *sizes)
    one = Retriever(datastores, 50, device="cpu", load=load, with_keys=True, with_key_log_probs=True)
    assert one.has_key_log_probs
    mask = torch.tensor([[True, True], [False, True]])
    found = one.retrieve(queries(2, 2), mask, torch.tensor([[7, -1], [3, 20]]))
    assert found.keys is not None
    assert found.key_log_probs is not None
    assert (found.keys.shape, found.key_log_probs.shape) == ((2, 2, 50, D), (2, 2, 50))
    assert found.key_log_probs.dtype == torch.float32
    there = found.found.numpy()
    assert there.sum() == 49 + 50 + 49
    ids = found.ids.numpy()[there]
    np.testing.assert_array_equal(found.keys.numpy()[there], keys[ids])
    np.testing.assert_array_equal(found.key_log_probs.numpy()[there], log_probs[ids])
    assert not found.keys[~found.found].any()
    assert not found.key_log_probs[~found.found].any()


def test_entries_by_their_ids(tmp_path: Path) -> None:
    datastores, keys, values, log_probs = with_log_probs(tmp_path, 20, 1, 29)
    one = Retriever(datastores, 3, device="cpu", with_keys=True, with_key_log_probs=True)
    ids = torch.randint(-1, 50, (6, 7), generator=torch.Generator().manual_seed(0))
    ids[0, :2] = -1
    known = ids.numpy() >= 0
    np.testing.assert_array_equal(one.values_of(ids), np.where(known, values[ids], 0))
    np.testing.assert_array_equal(one.gather(ids), np.where(known[..., None], keys[ids], 0))
    np.testing.assert_array_equal(one.key_log_probs_of(ids), np.where(known, log_probs[ids], 0))
    assert one.values_of(ids).dtype == torch.int64
    for lookup in (one.values_of, one.gather, one.key_log_probs_of):
        assert lookup(ids[:0]).shape[:2] == (0, 7)


def test_what_was_not_asked_for_is_not_given(tmp_path: Path) -> None:
    datastores, _, _, _ = with_log_probs(tmp_path, 20)
    one = search(datastores, 3)
    found = one.retrieve(queries(2))
    assert found.keys is None
    assert found.key_log_probs is None
    assert not one.has_key_log_probs
    for lookup in (one.gather, one.key_log_probs_of):
        with pytest.raises(ValueError, match="only if it is made with"):
            lookup(found.ids)


def test_log_probabilities_that_one_datastore_lacks(tmp_path: Path) -> None:
    having, _, _, _ = with_log_probs(tmp_path / "having", 20)
    lacking, _, _ = stores(tmp_path / "lacking", 10)
    one = Retriever([*having, *lacking], 3, device="cpu", with_key_log_probs=True)
    assert not one.has_key_log_probs
    assert one.retrieve(queries(2)).key_log_probs is None


def test_nothing_to_search_gives_what_was_asked_for(tmp_path: Path) -> None:
    datastores, _, _, _ = with_log_probs(tmp_path, 20)
    one = Retriever(datastores, 3, device="cpu", with_keys=True, with_key_log_probs=True)
    for asked in (queries(2, 4), queries(0, 4)):
        found = one.retrieve(asked, torch.zeros(asked.shape[:2], dtype=torch.bool), torch.zeros(asked.shape[:2]).long())
        assert found.keys is not None
        assert found.key_log_probs is not None
        assert (found.keys.shape, found.key_log_probs.shape) == ((*asked.shape[:2], 3, D), (*asked.shape[:2], 3))
