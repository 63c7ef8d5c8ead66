"""Files of kNN-LM, RetoMaton and knn-transformers are read by their prefix; what is wrong with them is said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore, KnnlmDatastore
from fairseq_knn.datastore.conversion import filled_entries
from fairseq_knn.errors import DatastoreError

ENTRIES, DIMENSION = 24, 10


@pytest.fixture
def entries() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ENTRIES, DIMENSION)), rng.integers(4, 300, (ENTRIES, 1))


def write(
    prefix: Path, entries: tuple[np.ndarray, np.ndarray], key_dtype: type = np.float16, value_dtype: type = np.int64
) -> Path:
    """Write a datastore as those toolkits do."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for half, array, dtype in (("keys", entries[0], key_dtype), ("vals", entries[1], value_dtype)):
        file = prefix.with_name(f"{prefix.name}_{half}.npy")
        written = np.memmap(file, dtype, "w+", shape=array.shape)
        written[:] = array.astype(dtype)
        written.flush()
    return prefix


@pytest.mark.parametrize(
    ("name", "key_dtype", "value_dtype", "known"),
    [
        # kNN-LM, with and without --dstore-fp16: --dstore-size and the model's dimension are known
        ("dstore", np.float32, np.int64, {"entries": ENTRIES, "dimension": DIMENSION}),
        ("dstore", np.float16, np.int16, {"entries": ENTRIES, "dimension": DIMENSION}),
        ("dstore", np.float16, np.int16, {"dimension": DIMENSION, "key_dtype": "float16"}),
        ("dstore", np.float16, np.int16, {"entries": ENTRIES, "key_dtype": "float16"}),
        # RetoMaton
        ("dstore16", np.float16, np.int64, {"dimension": DIMENSION}),
        (f"dstore16_finetuned_size{ENTRIES}_embed{DIMENSION}_fp16", np.float16, np.int64, {}),
        (f"dstore_size{ENTRIES}_embed{DIMENSION}_fp32", np.float32, np.int64, {}),
        # knn-transformers
        (f"dstore_gpt2_{ENTRIES}_{DIMENSION}", np.float16, np.int32, {}),
        (f"dstore_some_type_{ENTRIES}_{DIMENSION}", np.float32, np.int32, {}),
        # What is given counts, not a name that looks like sizes.
        ("dstore_of_1999_7", np.float16, np.int32, {"entries": ENTRIES, "dimension": DIMENSION}),
    ],
)
@pytest.mark.parametrize("as_directory", [False, True])
def test_sizes_and_types_are_told_by_name_and_files(
    tmp_path: Path,
    entries: tuple[np.ndarray, np.ndarray],
    name: str,
    key_dtype: type,
    value_dtype: type,
    known: dict[str, Any],
    as_directory: bool,
) -> None:
    prefix = write(tmp_path / name, entries, key_dtype, value_dtype)
    store = KnnlmDatastore.open(tmp_path if as_directory else prefix, **known)
    assert (store.path, store.entries, store.dimension) == (prefix, ENTRIES, DIMENSION)
    assert (store.key_dtype, store.key, store.plan, store.continues) == (key_dtype, "ffn_input", None, None)
    np.testing.assert_array_equal(store.keys(0, ENTRIES), entries[0].astype(key_dtype))
    np.testing.assert_array_equal(store.values, entries[1][:, 0])


@pytest.mark.parametrize(
    ("name", "value_dtype", "known", "message"),
    [
        (
            "dstore",
            np.int16,
            {"dimension": DIMENSION},
            r"dstore_keys\.npy \(480 bytes\) and .*dstore_vals\.npy \(48 bytes\) may hold several things: pass "
            "`--entries 24 --dimension 10 --key-dtype float16` or `--entries 12 --dimension 10 --key-dtype float32`, w",
        ),
        ("dstore", np.int64, {}, "may hold several things: pass `--entries 48 --dimension 5 --key-dtype float16` or"),
        (
            "dstore",
            np.int64,
            {"entries": 25, "dimension": DIMENSION},
            "do not fit to entries 25, dimension 10: pass `--entries 24 --dimension 10 --key-dtype float16`$",
        ),
        (
            "dstore_gpt2_25_10",
            np.int32,
            {},
            "do not fit to entries 25, dimension 10: pass `--entries 24 --dimension 10 --key-dtype float16`",
        ),
        (
            "dstore_size24_embed10_fp32",
            np.int64,
            {},
            "do not fit to entries 24, dimension 10, keys of float32: pass `--entries 24 --dimension 10 --key-dtype ",
        ),
    ],
)
def test_sizes_that_do_not_fit_or_leave_it_open(
    tmp_path: Path,
    entries: tuple[np.ndarray, np.ndarray],
    name: str,
    value_dtype: type,
    known: dict[str, Any],
    message: str,
) -> None:
    prefix = write(tmp_path / name, entries, np.float16, value_dtype)
    with pytest.raises(DatastoreError) as caught:
        KnnlmDatastore.open(prefix, **known)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_files(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    prefix = write(tmp_path / "dstore", entries)
    file = tmp_path / "dstore_keys.npy"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(DatastoreError, match=r"keys\.npy \(478 bytes\) .* do not fit to dimension 10: restore it"):
        KnnlmDatastore.open(prefix, dimension=DIMENSION)


def test_missing_files(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    prefix = write(tmp_path / "a" / "dstore", entries)
    with pytest.raises(DatastoreError, match=r"there is neither .*/other_keys\.npy nor .*/other_vals\.npy: name"):
        KnnlmDatastore.open(tmp_path / "other")
    with pytest.raises(DatastoreError, match=r"has neither keys\.npy and vals\.npy.* nor files \*_keys\.npy and"):
        KnnlmDatastore.open(tmp_path)
    write(tmp_path / "a" / "second", entries)
    with pytest.raises(DatastoreError, match=r"has the datastores dstore, second: name one of them, as .*/a/dstore"):
        KnnlmDatastore.open(tmp_path / "a")
    assert KnnlmDatastore.open(prefix, dimension=DIMENSION).entries == ENTRIES
    for half, other in (("keys", "vals"), ("vals", "keys")):
        file = tmp_path / "a" / f"dstore_{half}.npy"
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(DatastoreError, match=rf"dstore_{half}\.npy is missing beside dstore_{other}\.npy"):
            KnnlmDatastore.open(prefix)
        file.write_bytes(content)


def test_they_are_not_used_as_they_are(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    prefix = write(tmp_path / "dstore", entries)
    for path in (prefix, tmp_path):
        with pytest.raises(
            DatastoreError, match=r"too little to be used as it is: make one .*`fairseq-knn convert /.* NEW DATA"
        ):
            Datastore.load(path)
    with pytest.raises(DatastoreError, match="there is no datastore in"):
        Datastore.load(tmp_path / "other")


def test_values_that_are_no_tokens(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    values = entries[1]
    values[5] = 40_000
    store = KnnlmDatastore.open(
        write(tmp_path / "a", entries, np.float16, np.int16), entries=ENTRIES, dimension=DIMENSION
    )
    with pytest.raises(DatastoreError, match="negative tokens: kNN-LM's --dstore-fp16 stores tokens as int16, which"):
        _ = store.values
    values[5] = -1
    store = KnnlmDatastore.open(write(tmp_path / "b", entries), dimension=DIMENSION)
    with pytest.raises(DatastoreError, match=r"b_vals\.npy holds numbers from -1 to \d+, which are no tokens"):
        _ = store.values


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_room_at_the_end_is_no_entry(
    tmp_path: Path, entries: tuple[np.ndarray, np.ndarray], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token 0 is one like others where transformers made the vocabulary."""
    monkeypatch.setattr("fairseq_knn.datastore.conversion._BLOCK_BYTES", rows * DIMENSION * 2)
    keys, values = entries
    for tokens, empty_keys, filled in ((3, 0, 24), (3, 3, 21), (7, 3, 21), (0, 5, 24), (24, 20, 4)):
        changed = keys.copy(), values.copy()
        changed[1][ENTRIES - tokens :] = 0
        changed[0][ENTRIES - empty_keys :] = 0
        store = KnnlmDatastore.open(write(tmp_path / "dstore", changed), dimension=DIMENSION)
        assert filled_entries(store) == filled
    store = KnnlmDatastore.open(write(tmp_path / "dstore", (keys * 0, values * 0)), dimension=DIMENSION)
    with pytest.raises(DatastoreError, match=r"all entries of .*dstore are 0, so nothing was ever stored: restore it"):
        filled_entries(store)
