"""Directories of knn-box and adaptive-knn-mt are read as they are; what is wrong with them is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore, DatastoreWriter, KnnboxDatastore
from fairseq_knn.datastore.conversion import convert, key_errors, sentence_lengths
from fairseq_knn.errors import DatastoreError
from tests import toy
from tests.unit.datastore.corpus import Corpus

EOS = 2


def write(
    path: Path,
    keys: np.ndarray,
    values: np.ndarray,
    *,
    key_name: str = "<class 'numpy.float16'>",
    value_name: str = "<class 'int'>",
) -> Path:
    """Write a directory as knn-box does."""
    path.mkdir(parents=True, exist_ok=True)
    keys.tofile(path / "keys.npy")
    values.astype(np.int64).tofile(path / "vals.npy")
    infos = {
        "vals": {"name": "vals", "shape": list(values.shape), "dtype": value_name},
        "keys": {"name": "keys", "shape": list(keys.shape), "dtype": key_name},
    }
    (path / "config.json").write_text(json.dumps({"data_list": ["vals", "keys"], "data_infos": infos}))
    return path


@pytest.fixture
def entries() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values = np.concatenate([[*rng.integers(4, 50, n), EOS] for n in (3, 1, 7, 5)])
    return rng.normal(size=(len(values), 6)).astype(np.float16), values


def test_log_probabilities_and_sentences_are_not_recorded(
    tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]
) -> None:
    store = Datastore.load(write(tmp_path, *entries))
    assert store.log_probs is None
    assert store.entry_ids(np.arange(6).reshape(2, 3)).tolist() == [[-1, -1, -1]] * 2


def test_what_knnbox_wrote() -> None:
    store = Datastore.load(toy.TOY / "knnbox_datastore")
    assert isinstance(store, KnnboxDatastore)
    assert (store.entries, store.dimension, store.key, store.plan) == (15997, 64, "decoder_output", None)
    assert store.foreign_index == store.path / "keys.faiss_index"
    targets = [sentence.numpy() for sentence in toy.read_side(toy.DOMAIN, "train", "en")]
    assert sorted(np.concatenate(targets)) == sorted(store.values)
    # Sentence after sentence, in the order of knn-box's batches.
    stored = np.split(store.values, np.flatnonzero(store.values == EOS) + 1)[:-1]
    assert sorted(map(tuple, stored)) == sorted(map(tuple, targets))
    raw = np.fromfile(store.path / "keys.npy", np.float16).reshape(-1, 64)
    np.testing.assert_array_equal(store.keys(100, 200), raw[100:200])
    np.testing.assert_array_equal(store.gather_keys(np.array([15996, 0, 7])), raw[[15996, 0, 7]])
    assert repr(store).startswith("KnnboxDatastore(")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float16, "<class 'numpy.float16'>"),
        (np.float16, "torch.float16"),
        (np.float16, "float16"),
        (np.float32, "<class 'numpy.float32'>"),
        (np.float32, "torch.float32"),
    ],
)
def test_names_of_types(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray], dtype: type, name: str) -> None:
    keys, values = entries[0].astype(dtype), entries[1]
    store = Datastore.load(write(tmp_path, keys, values[:, None], key_name=name, value_name="torch.int64"))
    got = store.keys(0, store.entries)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, keys)
    np.testing.assert_array_equal(store.values, values)
    assert store.gather_keys(np.array([3])).dtype == dtype


def change(path: Path, place: str, value: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    target = config
    *steps, last = place.split("/")
    for step in steps:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("data_infos", ..., r"config\.json does not describe a datastore \('data_infos'\)"),
        ("data_infos/keys", ..., r"config\.json names no 'keys' among vals: .*the build did not finish"),
        ("data_infos/vals", ..., r"config\.json names no 'vals' among keys"),
        ("data_infos/keys/shape", [20, 7], r"keys\.npy has 240 bytes, but \(20, 7\) numbers of type float16 take 280"),
        ("data_infos/keys/shape", [20], r"gives 'keys' the shape \[20\]"),
        ("data_infos/keys/shape", "many", "does not describe a datastore"),
        ("data_infos/keys/dtype", "bool", "names the type bool, which no datastore has"),
        ("data_infos/keys/shape", [10, 12], "names 10 keys and 20 values"),
        ("data_infos/vals/shape", [20, 3], r"gives 'vals' the shape \[20, 3\]"),
    ],
)
def test_descriptions_that_do_not_fit(
    tmp_path: Path, entries: tuple[np.ndarray, np.ndarray], place: str, value: Any, message: str
) -> None:
    write(tmp_path, *entries)
    change(tmp_path, place, value)
    with pytest.raises(DatastoreError, match=message) as caught:
        Datastore.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_files(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    write(tmp_path, *entries)
    (tmp_path / "vals.npy").write_bytes((tmp_path / "vals.npy").read_bytes()[:-8])
    with pytest.raises(DatastoreError, match=r"vals\.npy has 152 bytes, but \(20,\) numbers of type int64 take 160"):
        Datastore.load(tmp_path)
    (tmp_path / "vals.npy").unlink()
    with pytest.raises(DatastoreError, match=r"vals\.npy is missing"):
        Datastore.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DatastoreError, match=r"config\.json is damaged"):
        Datastore.load(tmp_path)


def test_values_that_are_no_tokens(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    keys, values = entries
    store = Datastore.load(write(tmp_path, keys, np.where(values == EOS, -1, values)))
    with pytest.raises(DatastoreError, match=r"vals\.npy holds numbers from -1 to \d+, which are no tokens"):
        _ = store.values


def test_digest_follows_the_content(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    keys, values = entries
    stores = [
        Datastore.load(write(tmp_path / name, keys, v))
        for name, v in (("a", values), ("b", values), ("c", values[::-1].copy()))
    ]
    assert stores[0].digest == stores[1].digest != stores[2].digest


def test_a_datastore_is_not_built_over_it(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    write(tmp_path, *entries)
    with pytest.raises(DatastoreError, match="holds a datastore of another toolkit: choose another"):
        DatastoreWriter(tmp_path, Corpus().plan, overwrite=True)


def test_adaptive_knn_mt_has_no_description(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    keys, values = entries
    write(tmp_path, keys, values)
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        DatastoreError, match=r"neither a manifest nor knn-box's config\.json: .*convert .* --dimension D"
    ):
        Datastore.load(tmp_path)
    for known in ({}, {"key_dtype": "float16"}, {"entries": 20}):
        store = KnnboxDatastore.undescribed(tmp_path, dimension=6, **known)
        np.testing.assert_array_equal(store.keys(0, 20), keys)
    with pytest.raises(
        DatastoreError, match=r"keys\.npy \(240 bytes\) and .* do not fit to dimension 6, keys of float32"
    ):
        KnnboxDatastore.undescribed(tmp_path, dimension=6, key_dtype="float32")
    with pytest.raises(DatastoreError, match="dimension 7: pass `--entries 20 --dimension 6 --key-dtype float16` or "):
        KnnboxDatastore.undescribed(tmp_path, dimension=7)
    (tmp_path / "keys.npy").unlink()
    with pytest.raises(DatastoreError, match=r"keys\.npy is missing"):
        KnnboxDatastore.undescribed(tmp_path, dimension=6)


@pytest.mark.parametrize(
    ("values", "lengths"),
    [
        ([5, 6, EOS, 7, EOS], [3, 2]),
        ([5, EOS, 7, 8], [2, 2]),
        ([5, EOS, 0, 0, 0], [2]),
        ([5, EOS, 7, 0, 0], [2, 1]),
        ([EOS, EOS], [1, 1]),
        ([5, 6], [2]),
    ],
)
def test_sentences_end_with_their_eos(values: list[int], lengths: list[int]) -> None:
    assert sentence_lengths(np.array(values), EOS).tolist() == lengths


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_converted(
    tmp_path: Path, entries: tuple[np.ndarray, np.ndarray], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairseq_knn.datastore.conversion._BLOCK_BYTES", 100)
    keys, values = entries
    padded = np.concatenate([keys, np.zeros((3, 6))]).astype(dtype)
    write(tmp_path / "old", padded, np.append(values, [0, 0, 0]), key_name=np.dtype(dtype).name)
    source = KnnboxDatastore.open(tmp_path / "old")
    lengths = sentence_lengths(source.values, EOS)
    plan = Corpus(sentences=4, shard_sentences=3).plan
    done = []
    manifest = convert(source, tmp_path / "new", plan, lengths, advance=done.append)
    assert (manifest.entries, sum(done)) == (20, 20)
    store = Datastore.load(tmp_path / "new")
    np.testing.assert_array_equal(store.keys(0, 20), keys)
    np.testing.assert_array_equal(store.values, values)
    assert [shard.sentences for shard in manifest.shards] == [3, 1]
    with pytest.raises(DatastoreError, match="holds a finished datastore"):
        convert(source, tmp_path / "new", plan, lengths)


def test_an_interrupted_conversion_goes_on(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    source = KnnboxDatastore.open(write(tmp_path / "old", *entries))
    lengths = sentence_lengths(source.values, EOS)
    plan = Corpus(sentences=4, shard_sentences=1).plan
    convert(source, tmp_path / "whole", plan, lengths)
    for moment in range(2, 4):
        calls: list[int] = []

        def stop(done: int, calls: list[int] = calls, moment: int = moment) -> None:
            calls.append(done)
            if len(calls) > moment:
                raise KeyboardInterrupt

        path = tmp_path / f"stopped {moment}"
        with pytest.raises(KeyboardInterrupt):
            convert(source, path, plan, lengths, advance=stop)
        assert not (path / "manifest.json").exists()
        rest: list[int] = []
        convert(source, path, plan, lengths, advance=rest.append)
        assert rest[0] > 0
        assert sum(rest) == 20
        assert toy.content(path) == toy.content(tmp_path / "whole")
        shutil.rmtree(path)


def test_recomputed_keys_are_found_among_the_stored(tmp_path: Path, entries: tuple[np.ndarray, np.ndarray]) -> None:
    keys, values = entries
    # The first sentence again, with other keys: another source with the same translation.
    values, keys = np.append(values, values[:4]), np.concatenate([keys, -keys[:4]])
    source = KnnboxDatastore.open(write(tmp_path, keys, values))
    lengths = sentence_lengths(source.values, EOS)
    errors = key_errors(
        source,
        lengths,
        [
            (values[:4], keys[:4] * 1.01),
            (values[20:], -keys[:4]),
            (values[4:6], keys[:2]),
            (np.array([49, 49, EOS]), keys[:3]),
        ],
    )
    assert errors[0] == pytest.approx(0.01, rel=0.2)
    assert errors[1] == 0
    assert 0.5 < errors[2] < 10
    assert errors[3] == np.inf
