"""Sizes of large datastores are computed from what small ones have, and the page shows what is computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import projection
from tests.support import write_datastore

MEASURED = json.loads((projection.ROOT / "results" / "unit_costs.json").read_text())


def test_page_shows_the_computed_tables() -> None:
    page = projection.PAGE.read_text()
    assert projection.with_tables(page, projection.read()) == page


@pytest.mark.parametrize("documents", [False, True])
def test_entries_of_a_datastore_have_that_size(documents: bool, tmp_path: Path) -> None:
    entries, dimension = 3000, 32
    numbers = np.arange(entries)
    write_datastore(
        tmp_path,
        np.zeros((entries, dimension)),
        numbers % 1000,
        log_probs=np.zeros(entries, np.float32),
        documents=numbers // 100 if documents else None,
    )
    files = list((tmp_path / "shards").glob("*.npy"))
    size = sum(file.stat().st_size for file in files) - 128 * len(files)  # the header of a file
    assert size == entries * projection.datastore_bytes(dimension, documents=documents)


@pytest.mark.parametrize("kind", MEASURED["indexes"])
def test_entries_of_an_index_have_that_size(kind: str) -> None:
    expected = projection.ENTRY_BYTES[kind](MEASURED["dimension"])
    assert MEASURED["indexes"][kind]["bytes_per_entry"] == pytest.approx(expected, rel=0.01)
