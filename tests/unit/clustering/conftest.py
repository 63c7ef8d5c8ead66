"""Fixtures of the tests of clusters."""

import os
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore
from tests.support import write_datastore

ENTRIES, DIMENSION, GROUPS = 600, 6, 20


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Datastore:
    """Keys in groups that overlap, five values, several shards."""
    rng = np.random.default_rng(3)
    group = rng.integers(GROUPS, size=ENTRIES)
    keys = rng.normal(size=(GROUPS, DIMENSION))[group] + 0.3 * rng.normal(size=(ENTRIES, DIMENSION))
    return write_datastore(tmp_path / "store", keys, group % 5 + 4, shard_sentences=20)
