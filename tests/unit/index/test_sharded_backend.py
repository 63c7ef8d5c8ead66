"""Keys that several devices hold together are searched as if one held them all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import DatastoreError
from fairseq_knn.index.sharded_backend import ShardedBackend
from fairseq_knn.index.torch_backend import TorchBackend
from fairseq_knn.retrieval import Retriever, retriever
from tests.support import write_datastore

CPU = torch.device("cpu")


def store(path: Path, keys: np.ndarray) -> Datastore:
    return write_datastore(path / "store", keys, np.arange(len(keys)) % 1000, shard_sentences=20)


@pytest.mark.parametrize(("entries", "devices"), [(1, 2), (3, 8), (100, 3), (3001, 4)])
def test_equals_one_device_bit_for_bit(tmp_path: Path, entries: int, devices: int) -> None:
    rng = np.random.default_rng(1)
    datastore = store(tmp_path, rng.normal(size=(entries, 24)))
    queries = torch.from_numpy(rng.normal(size=(19, 24))).half()
    queries[3] = torch.nan
    one, several = TorchBackend(datastore, CPU), ShardedBackend(datastore, [CPU] * devices)
    assert several.entries == entries
    for k in (1, 8, 90):
        for expected, got in zip(one.search(queries, k), several.search(queries, k), strict=True):
            assert got.dtype == expected.dtype
            assert torch.equal(got, expected)
    ids = torch.from_numpy(rng.integers(entries, size=(4, 5)))
    assert torch.equal(several.vectors(ids), one.vectors(ids).float())


def test_of_equal_distances_the_smaller_id_comes_first(tmp_path: Path) -> None:
    """In every part, the same twenty keys."""
    keys = np.tile(np.random.default_rng(2).normal(size=(20, 6)), (5, 1))
    datastore = store(tmp_path, keys)
    queries = torch.from_numpy(keys[:4]).float()
    distances, ids = ShardedBackend(datastore, [CPU] * 5).search(queries, 7)
    assert ids[:, :5].tolist() == [[row, row + 20, row + 40, row + 60, row + 80] for row in range(4)]
    expected = TorchBackend(datastore, CPU).search(queries, 7)
    assert torch.equal(distances, expected[0])
    assert torch.equal(ids, expected[1])


def test_no_queries(tmp_path: Path) -> None:
    distances, ids = ShardedBackend(store(tmp_path, np.eye(50)), [CPU] * 3).search(torch.zeros(0, 50), 4)
    assert distances.shape == ids.shape == (0, 4)


def test_a_part_reads_its_own_entries_alone(tmp_path: Path) -> None:
    datastore = store(tmp_path, np.eye(300))
    content = bytearray((path := tmp_path / "store/shards/keys-00000.npy").read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    part = TorchBackend(datastore, CPU, entries=range(datastore.shard_entries[0], 300))
    assert part.search(torch.eye(300)[-2:], 1)[1].flatten().tolist() == [part.entries - 2, part.entries - 1]
    with pytest.raises(DatastoreError, match=r"keys-00000\.npy has checksum"):
        ShardedBackend(datastore, [CPU] * 3)


def test_neighbours_come_with_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the devices that hold them; they are not read a second time."""
    datastore = store(tmp_path, np.random.default_rng(3).normal(size=(500, 8)))
    monkeypatch.setattr(retriever, "open_backend", lambda each, **_: ShardedBackend(each, [CPU] * 3))
    monkeypatch.setattr(retriever, "open_keys", pytest.fail)
    found = Retriever(datastore, 6, with_keys=True, recompute=True).retrieve(torch.zeros(2, 3, 8))
    assert found.keys is not None
    np.testing.assert_array_equal(found.keys.numpy(), datastore.gather_keys(found.ids.numpy()))
