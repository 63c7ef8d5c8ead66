"""What counts as found."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.index import open_backend
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.recall import RecallTest
from tests.support import write_datastore


class Altered(SearchBackend):
    """An exact search whose ids go through a function."""

    def __init__(self, exact: SearchBackend, alter) -> None:
        self.entries, self.dimension, self.device = exact.entries, exact.dimension, exact.device
        self._exact, self._alter = exact, alter

    def search(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        distances, ids = self._exact.search(queries, k)
        return distances, self._alter(ids)

    def vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return self._exact.vectors(ids)


def recall(path: Path, keys: np.ndarray, alter, k: int = 8) -> float:
    datastore = write_datastore(path / "store", keys, np.zeros(len(keys), np.int32))
    exact = open_backend(datastore, backend="torch", device="cpu")
    return RecallTest(exact, datastore, k, seed=1).measure(Altered(exact, alter)).recall


@pytest.fixture(scope="module")
def keys() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(400, 6)).astype(np.float16)


def test_exact_search_finds_all(tmp_path: Path, keys: np.ndarray) -> None:
    assert recall(tmp_path, keys, lambda ids: ids) == 1


def test_what_is_missing_or_repeated_is_not_found(tmp_path: Path, keys: np.ndarray) -> None:
    def drop(ids: torch.Tensor) -> torch.Tensor:
        ids[:, 5:] = -1
        return ids

    def repeat(ids: torch.Tensor) -> torch.Tensor:
        ids[:, 5:] = ids[:, 4:5]
        return ids

    # The first of the nine found is the query's own entry.
    assert recall(tmp_path / "a", keys, drop) == pytest.approx(4 / 8)
    assert recall(tmp_path / "b", keys, repeat) == pytest.approx(4 / 8)


def test_arbitrary_keys_are_hardly_ever_near(tmp_path: Path, keys: np.ndarray) -> None:
    assert recall(tmp_path, keys, lambda ids: (ids + 200) % 400) < 0.1


def test_another_of_equal_keys_is_as_good(tmp_path: Path, keys: np.ndarray) -> None:
    twice = np.concatenate([keys[:200], keys[:200]])
    assert recall(tmp_path, twice, lambda ids: (ids + 200) % 400, k=3) == 1


@pytest.mark.parametrize("entries", [1, 2, 5])
def test_fewer_entries_than_neighbours(tmp_path: Path, keys: np.ndarray, entries: int) -> None:
    assert recall(tmp_path, keys[:entries], lambda ids: ids) == 1
