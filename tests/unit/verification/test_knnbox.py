"""Checking datastores of knn-box, which have no checksums."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.description import describe
from fairseq_knn.errors import DatastoreError
from fairseq_knn.verification import findings, open_check
from fairseq_knn.verification.content import Symbols
from fairseq_knn.verification.findings import Vocabulary

ENTRIES, DIMENSION = 30, 4
DICTIONARY = Vocabulary(Symbols(50), "", "dict.en.txt")


@pytest.fixture(params=["float16", "float32"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(findings, "_BLOCK_BYTES", 64)
    rng = np.random.default_rng(0)
    rng.normal(size=(ENTRIES, DIMENSION)).astype(request.param).tofile(tmp_path / "keys.npy")
    rng.integers(4, 50, ENTRIES).tofile(tmp_path / "vals.npy")
    infos = {
        "keys": {"shape": [ENTRIES, DIMENSION], "dtype": f"<class 'numpy.{request.param}'>"},
        "vals": {"shape": [ENTRIES], "dtype": "<class 'int'>"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"data_infos": infos}))
    return tmp_path


def found(path: Path, vocabulary: Vocabulary | None = None, *, faults: bool = True) -> list[str]:
    told = open_check(path, vocabulary).findings(lambda _: None)
    return [finding.text for finding in told if finding.fault == faults]


def open_arrays(store: Path) -> tuple[np.ndarray, np.ndarray]:
    itemsize = (store / "keys.npy").stat().st_size // (ENTRIES * DIMENSION)
    keys = np.memmap(store / "keys.npy", f"f{itemsize}", "r+", shape=(ENTRIES, DIMENSION))
    return keys, np.memmap(store / "vals.npy", np.int64, "r+")


def test_whole(store: Path) -> None:
    check = open_check(store)
    advanced: list[int] = []
    assert list(check.findings(advanced.append)) == []
    assert sum(advanced) == check.bytes == sum((store / f"{name}.npy").stat().st_size for name in ("keys", "vals"))
    assert check.figures() == "30 entries without checksums"
    assert check.datastore is not None
    known = describe(Datastore.load(store))
    assert (known["format"], known["entries"], "plan" in known) == ("knn-box", ENTRIES, False)
    assert known["bytes"] == {
        name: (store / f"{file}.npy").stat().st_size for name, file in (("keys", "keys"), ("values", "vals"))
    }


def test_both_sizes_wrong(store: Path) -> None:
    os.truncate(store / "keys.npy", 10)
    (store / "vals.npy").unlink()
    faults = found(store)
    assert len(faults) == 2
    assert "keys.npy has 10 bytes, but (30, 4) numbers" in faults[0]
    assert "vals.npy is missing: restore it" in faults[1]
    assert open_check(store).datastore is None


def test_wrong_numbers(store: Path) -> None:
    keys, values = open_arrays(store)
    keys[7, 2], keys[9], values[3], values[11], values[12] = np.nan, 0, -4, 1, 55
    keys.flush()
    values.flush()
    faults = found(store, DICTIONARY)
    told = (
        "keys.npy: of 30 keys 1 is NaN or infinite (in row 7); restore it",
        "keys.npy: of 30 keys 1 is 0 throughout (in row 9); restore it",
        "vals.npy: of 30 values 2 are none of the 50 ids of the vocabulary (the first in row 3); name the dictionary",
        "vals.npy: of 30 values 1 is 1, which is padding and never a target (in row 11); name the dictionary",
    )
    assert len(faults) == len(told)
    for fault, part in zip(faults, told, strict=True):
        assert part in fault
    assert "of 30 values 1 is no token id (in row 3)" in found(store)[2]


def test_empty_entries_at_the_end_are_no_fault(store: Path) -> None:
    keys, values = open_arrays(store)
    keys[3] = 0
    keys[-11:], values[-11:] = 0, 0
    values[-15] = 0  # alone it means nothing
    faults = found(store)
    assert len(faults) == 1
    assert "of 30 keys 1 is 0 throughout (in row 3)" in faults[0]
    (remark,) = found(store, faults=False)
    assert "the last 11 of 30 entries are empty" in remark


def test_nothing_but_empty_entries(store: Path) -> None:
    keys, values = open_arrays(store)
    keys[:], values[:] = 0, 0
    assert found(store) == []
    assert "the last 30 of 30 entries" in found(store, faults=False)[0]


def test_undescribed(store: Path) -> None:
    (store / "config.json").unlink()
    with pytest.raises(DatastoreError, match="fairseq-knn convert"):
        open_check(store)
