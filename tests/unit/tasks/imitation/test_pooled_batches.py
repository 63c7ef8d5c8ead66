"""Batches of an update that know of each other."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.data import iterators

from fairseq_knn.criterions.student_contexts import PLACE, POOL
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.pooled_batches import pool_batches, pools


def batch(number: int) -> dict[str, Any]:
    return {"net_input": {"src_tokens": number}, "sentence": number, "target": number}


def described(found: list[dict[str, Any]]) -> list[Any]:
    """Place and pool of every batch."""
    return [(each.get(PLACE), [other["sentence"] for other in each.get(POOL, [])]) for each in found]


def test_pools_are_within_updates() -> None:
    """Updates of five batches, pools of three: the second of each update is shorter, and so is the last update."""
    found = list(pools(map(batch, range(8)), 5, 3))
    assert [each["target"] for each in found] == list(range(8))
    assert described(found) == [(0, [1, 2]), (1, []), (2, []), (0, [4]), (1, []), (0, [6, 7]), (1, []), (2, [])]
    assert set(found[0][POOL][0]) == {"net_input", "sentence"}  # nothing that would be moved to a GPU in vain


def test_a_batch_alone_is_left_as_it_is() -> None:
    assert described(list(pools(map(batch, range(3)), 2, 2))) == [(0, [1]), (1, []), (None, [])]


def test_what_fills_up_an_update_is_not_decoded() -> None:
    """Where a process has fewer batches than others, stock gives it empty ones."""
    found = list(pools([batch(0), {}, batch(2), batch(3), {}, {}], 3, 3))
    assert found[1] == found[4] == found[5] == {}
    assert described(found) == [(0, [2]), (None, []), (1, []), (None, []), (None, []), (None, [])]


class Numbers(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return 22


def iterator() -> Any:
    made = iterators.EpochBatchIterator(
        Numbers(), lambda numbers: batch(numbers[0]), [[2 * each, 2 * each + 1] for each in range(11)], seed=1
    )
    pool_batches(made, 2, [4])
    return made


def test_an_interrupted_epoch_goes_on() -> None:
    straight = list(iterator().next_epoch_itr())
    stopped = iterator()
    groups = iterators.GroupedIterator(stopped.next_epoch_itr(), 4)
    next(groups)
    state = stopped.state_dict()
    assert state["iterations_in_epoch"] == 4
    resumed = iterator()
    resumed.load_state_dict(state)
    rest = resumed.next_epoch_itr()
    assert (rest.n, len(rest)) == (4, 11)
    assert list(rest) == straight[4:]
    assert not rest.has_next()
    assert resumed.end_of_epoch()


def test_more_than_an_update_has() -> None:
    with pytest.raises(ConfigurationError, match="--kd-pool 5"):
        pool_batches(SimpleNamespace(), 5, [1, 4])
