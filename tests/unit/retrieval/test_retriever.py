"""Several datastores are searched as one, and what is not searched has no neighbours."""

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
