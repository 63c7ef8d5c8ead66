"""Reading gives what was written, across shards; damage of any kind is named."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_knn.datastore import (
    LANGUAGE_MODEL,
    TRANSLATION,
    Datastore,
    DatastoreWriter,
    Manifest,
    ShardedDatastore,
)
from fairseq_knn.datastore.layout import ARRAYS, array_path
from fairseq_knn.errors import DatastoreError
from tests.damage import flip
from tests.support import write_datastore
from tests.unit.datastore.corpus import Corpus


def sharded(path: Path) -> tuple[Datastore, np.ndarray]:
    """A datastore of shards of 0 to 9 entries, and its keys."""
    corpus = Corpus(sentences=20, shard_sentences=1, skip=frozenset({0, 5, 6, 19}))
    corpus.build(path)
    return Datastore.load(path), np.concatenate([corpus.keys[s] for s in corpus.stored])


def test_ranges_of_keys_across_shards(tmp_path: Path) -> None:
    store, keys = sharded(tmp_path)
    for start in range(store.entries + 1):
        for stop in range(start, store.entries + 3):
            got = store.keys(start, stop)
            assert got.dtype == np.float16
            np.testing.assert_array_equal(got, keys[start:stop])


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_blocks_of_keys(tmp_path: Path, rows: int) -> None:
    store, keys = sharded(tmp_path)
    blocks = list(store.key_blocks(rows))
    assert [start for start, _ in blocks] == list(range(0, store.entries, rows))
    assert all(len(block) <= rows for _, block in blocks)
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), keys)


def test_gathered_keys(tmp_path: Path) -> None:
    store, keys = sharded(tmp_path)
    rng = np.random.default_rng(0)
    for size in (0, 1, 5, 300):
        entries = rng.integers(0, store.entries, size)  # in any order, with repetitions
        np.testing.assert_array_equal(store.gather_keys(entries), keys[entries])
    everything = np.arange(store.entries)
    np.testing.assert_array_equal(store.gather_keys(everything), store.keys(0, store.entries))
    np.testing.assert_array_equal(store.gather_keys(everything[::-1]), keys[::-1])


def test_a_search_may_read_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    store, keys = sharded(tmp_path)
    np.testing.assert_array_equal(store.gather_keys(np.arange(store.entries)), keys)
    np.testing.assert_array_equal(store.keys(0, store.entries), keys)
    descriptors = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    targets = [os.readlink(path) for path in descriptors if path.is_symlink()]
    assert not [target for target in targets if target.startswith(f"{tmp_path}/shards/")]


def test_log_probabilities(tmp_path: Path) -> None:
    store, _ = sharded(tmp_path)
    corpus = Corpus(sentences=20, shard_sentences=1, skip=frozenset({0, 5, 6, 19}))
    expected = np.concatenate([corpus.log_probs[s] for s in corpus.stored])
    stored = store.log_probs
    assert stored is not None
    assert (len(stored), stored.shape, stored.dtype) == (store.entries, (store.entries,), np.float32)
    np.testing.assert_array_equal(np.asarray(stored), expected)
    np.testing.assert_array_equal(np.asarray(stored, np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(stored.verified(), expected)
    np.testing.assert_array_equal(stored[3:-1:2], expected[3:-1:2])
    ids = np.random.default_rng(0).integers(0, store.entries, (4, 7))
    np.testing.assert_array_equal(stored[ids], expected[ids])
    assert not stored.shard(1).flags.writeable
    assert str(array_path(tmp_path, "log_probs", 1)) in Path("/proc/self/maps").read_text()


def test_documents_and_what_continues_them(tmp_path: Path) -> None:
    lengths = [3, 2, 4, 1]
    keys, values = np.eye(10), np.arange(10)
    documents = np.array([0, 0, 1, 1, 1, 1, 1, 4, 4, 4])
    store = write_datastore(tmp_path / "lm", keys, values, lengths, 2, documents=documents)
    assert isinstance(store, ShardedDatastore)
    assert store.plan.kind == LANGUAGE_MODEL
    np.testing.assert_array_equal(store.documents, documents)
    # A document goes on across blocks; the last entry of all is followed by nothing.
    assert store.continues.tolist() == [True, False, True, True, True, True, False, True, True, False]
    translations = write_datastore(tmp_path / "mt", keys, values, lengths, 2)
    assert isinstance(translations, ShardedDatastore)
    assert (translations.plan.kind, translations.documents) == (TRANSLATION, None)
    assert translations.continues.tolist() == [True, True, False, True, False, True, True, True, False, False]


def test_a_document_does_not_continue_over_a_block_that_was_left_out(tmp_path: Path) -> None:
    corpus = Corpus(sentences=4, shard_sentences=4)
    writer = DatastoreWriter(tmp_path, corpus.plan)
    part = writer.open_shard(0)
    part.add([0, 1, 3], [2, 1, 2], np.eye(5), np.arange(5), documents=np.zeros(5, np.int64))
    part.commit()
    writer.finish()
    assert Datastore.load(tmp_path).continues.tolist() == [True, True, False, True, False]


def test_damaged_log_probabilities_are_not_read_as_a_whole(tmp_path: Path) -> None:
    store, _ = sharded(tmp_path)
    flip(array_path(tmp_path, "log_probs", 3))
    assert store.log_probs is not None
    with pytest.raises(DatastoreError, match=r"log_probs-00003\.npy has checksum"):
        store.log_probs.verified()


def test_without_log_probabilities(tmp_path: Path) -> None:
    store = write_datastore(tmp_path / "none", np.eye(4), np.arange(4))
    assert store.log_probs is None
    assert list(store.array_bytes) == ["keys", "values", "sentences", "positions"]
    corpus = Corpus()  # begun by a version that did not store them
    writer = DatastoreWriter(tmp_path / "some", corpus.plan)
    part = writer.open_shard(0)
    for s in range(3):
        part.add([s], [int(corpus.lengths[s])], corpus.keys[s], corpus.values[s])
    part.commit()
    corpus.build(tmp_path / "some")
    assert Datastore.load(tmp_path / "some").log_probs is None


def test_first_entries_of_sentences(tmp_path: Path) -> None:
    corpus = Corpus(sentences=40, shard_sentences=6, skip=frozenset({0, 3, 11, 13, *range(18, 24), 39}))
    corpus.build(tmp_path)
    store = Datastore.load(tmp_path)
    asked = np.random.default_rng(0).integers(-3, 45, (30, 9))
    first = {sentence: entry for entry, sentence in reversed(list(enumerate(store.sentences.tolist())))}
    for dtype in (np.int64, np.int32):
        got = store.entry_ids(asked.astype(dtype))
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, np.vectorize(lambda sentence: first.get(sentence, -1))(asked))
    entries = store.entry_ids(np.array(corpus.stored))
    np.testing.assert_array_equal(store.sentences[entries], corpus.stored)
    assert not store.positions[entries].any()
    assert store.entry_ids(np.array([], int)).shape == (0,)
    assert store.entry_ids(np.array(1)) == entries[0]


def test_digest_identifies_the_content(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        Corpus(seed=seed).build(tmp_path / name)
        digests.append(Datastore.load(tmp_path / name).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("path", ["absent", "file", "file/below", "empty"])
def test_no_datastore(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatastoreError, match=f"there is no datastore in .*/{path}: build one"):
        Datastore.load(tmp_path / path)


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_and_truncated_files(tmp_path: Path, name: str) -> None:
    Corpus().build(tmp_path)
    path = tmp_path / f"shards/{name}-00002.npy"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(DatastoreError, match=rf"{name}-00002\.npy has {size - 1} bytes instead of {size}; .*"):
        Datastore.load(tmp_path)
    path.unlink()
    with pytest.raises(DatastoreError, match=rf"{name}-00002\.npy is missing; .*--knn-overwrite"):
        Datastore.load(tmp_path)


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_checksum(tmp_path: Path, name: str) -> None:
    Corpus().build(tmp_path)
    path = tmp_path / f"shards/{name}-00001.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = Datastore.load(tmp_path)
    store.verify(0, name)
    with pytest.raises(DatastoreError, match=rf"{name}-00001\.npy has checksum \w{{12}} instead of \w{{12}}"):
        store.verify(1, name)
    if name == "values":  # a wrong token would go into translations
        with pytest.raises(DatastoreError, match="checksum"):
            _ = store.values


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Corpus().build(tmp_path)
    stock = Path.stat

    # Permissions do not stop root, so the refusal is made here.
    def refuse(path: Path, **options: Any) -> os.stat_result:
        if path.suffix == ".npy":
            raise PermissionError(13, "Permission denied", str(path))
        return stock(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DatastoreError, match=r"\w+-00000\.npy cannot be read \(Permission denied\)"):
        Datastore.load(tmp_path)


def test_manifest_survives_json(tmp_path: Path) -> None:
    Corpus().build(tmp_path)
    manifest = Datastore.load(tmp_path).manifest
    content = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(content, "manifest.json") == manifest


@pytest.mark.parametrize("schema", [0, 2, None, "1"])
def test_other_format_version(tmp_path: Path, schema: object) -> None:
    Corpus().build(tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    content["plan"]["schema"] = schema
    content["plan"]["news"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(DatastoreError, match=f"has format version {schema}, this package reads version 1: install"):
        Datastore.load(tmp_path)


def damaged(content: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """Set (or with ``...`` delete) an item at a place like ``shards/0/arrays``."""
    *path, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    target: Any = content
    for part in path:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return content


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("plan", ...),
        ("plan", "text"),
        ("plan/schema", ...),
        ("plan/split", ...),
        ("plan/unknown", 1),
        ("entries", ...),
        ("unknown", 1),
        ("shards", 3),
        ("shards/0", "text"),
        ("shards/0", None),
        ("shards/0/entries", ...),
        ("shards/0/arrays", ...),
        ("shards/0/arrays", [1]),
        ("shards/0/arrays/keys", "text"),
        ("shards/0/arrays/keys/sha256", ...),
    ],
)
def test_manifest_that_is_none(tmp_path: Path, place: str, value: object) -> None:
    Corpus().build(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damaged(json.loads(path.read_text()), place, value)))
    with pytest.raises(DatastoreError, match=r"manifest\.json is not the .*: .*build .* again") as caught:
        Datastore.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "null", "no JSON", '{"plan": {'])
def test_manifest_that_is_not_json(tmp_path: Path, content: str) -> None:
    Corpus().build(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DatastoreError, match=r"manifest\.json .*again"):
        Datastore.load(tmp_path)


def test_helper_of_the_tests_writes_what_it_is_given(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16)
    store = write_datastore(tmp_path, keys, np.arange(12), lengths=[5, 7], shard_sentences=1)
    np.testing.assert_array_equal(store.keys(0, 12), keys)
    np.testing.assert_array_equal(store.values, np.arange(12))
    assert repr(store) == f"ShardedDatastore({str(tmp_path)!r}, entries=12, dimension=3)"
