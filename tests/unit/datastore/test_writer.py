"""A datastore on disk depends on its corpus alone, and refuses what could not be trusted."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore, DatastoreWriter, merge
from fairseq_knn.datastore.layout import ARRAYS
from fairseq_knn.errors import DatastoreError, UserError
from tests.unit.datastore.corpus import Corpus, tree


def test_files_are_real_npy_in_the_order_of_sentences_and_positions(tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path, order=3)
    names = {name: sorted((tmp_path / "shards").glob(f"{name}-*.npy")) for name in ("keys", "values")}
    assert [path.name for path in names["keys"]] == [f"keys-{i:05d}.npy" for i in range(4)]
    keys = np.concatenate([np.load(path) for path in names["keys"]])
    values = np.concatenate([np.load(path) for path in names["values"]])
    np.testing.assert_array_equal(keys, np.concatenate([corpus.keys[s] for s in corpus.stored]))
    np.testing.assert_array_equal(values, np.concatenate([corpus.values[s] for s in corpus.stored]))
    assert keys.dtype == np.float16
    assert values.dtype == np.int32
    store = Datastore.load(tmp_path)
    lengths = corpus.lengths[corpus.stored]
    np.testing.assert_array_equal(store.sentences, np.repeat(corpus.stored, lengths))
    np.testing.assert_array_equal(store.positions, np.concatenate([np.arange(n) for n in lengths]))
    assert store.sentences.dtype == store.positions.dtype == np.int32


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_of_the_batches_does_not_matter(tmp_path: Path, order: int) -> None:
    Corpus().build(tmp_path / "one", order=0)
    Corpus().build(tmp_path / "other", order=order)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_only_the_documented_files_are_left(tmp_path: Path) -> None:
    Corpus(sentences=2, skip=frozenset()).build(tmp_path)
    arrays = [f"shards/{name}-00000.npy" for name in ARRAYS]
    expected = {"manifest.json", "shards", "shards/plan.json", "shards/commit-00000.json", *arrays}
    assert set(tree(tmp_path)) == expected


def test_manifest_tells_what_is_there(tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path)
    manifest = Datastore.load(tmp_path).manifest
    assert manifest.plan == corpus.plan
    assert manifest.entries == corpus.lengths[corpus.stored].sum()
    assert (manifest.dimension, manifest.key_dtype, manifest.value_dtype) == (5, "float16", "int32")
    assert manifest.skipped == 1
    assert [shard.sentences for shard in manifest.shards] == [3, 2, 3, 2]
    assert [shard.skipped for shard in manifest.shards] == [0, 1, 0, 0]


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(2**31 - 1, np.int32), (2**31, np.int64)])
def test_values_never_overflow(tmp_path: Path, vocabulary_size: int, dtype: type) -> None:
    plan = replace(Corpus().plan, vocabulary_size=vocabulary_size, sentences=1)
    writer = DatastoreWriter(tmp_path, plan)
    part = writer.open_shard(0)
    part.add([0], [2], np.ones((2, 3), np.float16), np.array([0, vocabulary_size - 1]))
    part.commit()
    writer.finish()
    values = Datastore.load(tmp_path).values
    assert values.dtype == dtype
    assert values.tolist() == [0, vocabulary_size - 1]


def test_shard_without_entries(tmp_path: Path) -> None:
    corpus = Corpus(skip=frozenset({3, 4, 5}))  # the whole of shard 1
    corpus.build(tmp_path)
    assert not list((tmp_path / "shards").glob("*-00001.npy"))
    store = Datastore.load(tmp_path)
    assert store.manifest.shards[1].entries == 0
    assert store.manifest.skipped == 3
    assert set(store.sentences) == set(corpus.stored)
    np.testing.assert_array_equal(store.keys(0, store.entries), np.concatenate([corpus.keys[s] for s in corpus.stored]))


def test_sentence_without_tokens(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, replace(Corpus().plan, sentences=3))
    part = writer.open_shard(0)
    part.add([2, 0], [0, 2], np.ones((2, 4)), np.array([5, 6]))
    part.add([1], [0], np.empty((0, 4)), np.array([], int))
    record = part.commit()
    writer.finish()
    assert (record.entries, record.sentences, record.skipped) == (2, 3, 0)
    assert Datastore.load(tmp_path).sentences.tolist() == [0, 0]


def test_one_entry(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, replace(Corpus().plan, sentences=1))
    part = writer.open_shard(0)
    part.add([0], [1], np.full((1, 1), 0.5), np.array([7]))
    part.commit()
    writer.finish()
    store = Datastore.load(tmp_path)
    assert (store.entries, store.dimension) == (1, 1)
    assert store.keys(0, 1).tolist() == store.gather_keys(np.array([0])).tolist() == [[0.5]]
    assert store.values.tolist() == [7]


def test_no_entries_at_all(tmp_path: Path) -> None:
    corpus = Corpus(skip=frozenset(range(11)))
    with pytest.raises(DatastoreError, match=r"no entries: all 11 sentences of 'train' were too long"):
        corpus.build(tmp_path)
    with pytest.raises(DatastoreError, match="unfinished"):
        Datastore.load(tmp_path)


def test_split_without_sentences(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match=r"the split 'train' has no sentences.*--gen-subset"):
        DatastoreWriter(tmp_path / "store", replace(Corpus().plan, sentences=0))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_log_probabilities_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    part = DatastoreWriter(tmp_path, Corpus().plan).open_shard(0)
    log_probs = np.array([-1, -2, -3, bad, -5])
    with pytest.raises(DatastoreError, match=r"probabilities that are NaN or 0 for sentence 1: check the checkpoint"):
        part.add([2, 1], [2, 3], np.ones((5, 4)), np.arange(5), log_probs)


def test_log_probabilities_of_all_keys_or_of_none(tmp_path: Path) -> None:
    for known in (None, np.array([-1.0])):
        part = DatastoreWriter(tmp_path, Corpus().plan).open_shard(0)
        part.add([2], [1], np.ones((1, 4)), np.array([1]), known)
        with pytest.raises(ValueError, match="log-probabilities of some of its keys only"):
            part.add([0], [1], np.ones((1, 4)), np.array([1]), np.array([-1.0]) if known is None else None)
        with pytest.raises(ValueError, match="1 keys and 2 log-probabilities"):
            part.add([0], [1], np.ones((1, 4)), np.array([1]), np.array([-1.0, -2.0]))
        part.discard()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65520.0, -70000.0])
def test_keys_beyond_float16_are_refused(tmp_path: Path, bad: float, dtype: type) -> None:
    part = DatastoreWriter(tmp_path, Corpus().plan).open_shard(0)
    with np.errstate(over="ignore"):
        keys: np.ndarray = np.ones((5, 4)).astype(dtype)
        keys[3, 2] = bad
    with pytest.raises(DatastoreError, match=r"NaN or beyond the range of float16 for sentence 1: check"):
        part.add([2, 1], [2, 3], keys, np.arange(5))


def test_largest_float16_is_stored(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, replace(Corpus().plan, sentences=1))
    part = writer.open_shard(0)
    part.add([0], [2], np.array([[65504.0], [-65504.0]], np.float32), np.arange(2))
    part.commit()
    writer.finish()
    assert Datastore.load(tmp_path).keys(0, 2).tolist() == [[65504.0], [-65504.0]]


@pytest.mark.parametrize(
    ("sentences", "lengths", "keys", "values"),
    [
        ([0], [2], (3, 4), [1, 2, 3]),  # tokens without a sentence
        ([0], [4], (3, 4), [1, 2, 3]),
        ([0], [3], (3, 4), [1, 2]),
        ([0, 0], [1, 2], (3, 4), [1, 2, 3]),  # twice
        ([3], [3], (3, 4), [1, 2, 3]),  # of another shard
        ([-1], [3], (3, 4), [1, 2, 3]),
        ([0], [3], (3, 4), [1, 2, 1000]),  # no token
        ([0], [3], (3, 4), [1, -1, 3]),
        ([0], [3], (3, 5), [1, 2, 3]),  # another dimension than before
        ([2], [3], (3, 4), [1, 2, 3]),  # added before
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, sentences: list[int], lengths: list[int], keys: tuple[int, int], values: list[int]
) -> None:
    part = DatastoreWriter(tmp_path, Corpus().plan).open_shard(0)
    part.add([2], [1], np.ones((1, 4)), np.array([1]))
    with pytest.raises(ValueError, match=r"keys|values|sentence"):
        part.add(sentences, lengths, np.ones(keys), np.array(values))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_several_ranks_give_the_bytes_of_one(tmp_path: Path, world: int) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "one")
    for rank in reversed(range(world)):
        assert not (tmp_path / "many/manifest.json").exists()
        corpus.build(tmp_path / "many", rank=rank, world=world, order=rank)
    assert merge(tmp_path / "many") == Datastore.load(tmp_path / "one").manifest
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


def test_ranks_may_be_other_ones_after_an_interruption(tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "one")
    corpus.build(tmp_path / "many", rank=1, world=3)
    corpus.build(tmp_path / "many", rank=0, world=2)
    corpus.build(tmp_path / "many")
    assert tree(tmp_path / "one") == tree(tmp_path / "many")


def test_merge_names_what_is_missing(tmp_path: Path) -> None:
    corpus = Corpus(sentences=20, shard_sentences=2)  # ten shards
    writer = DatastoreWriter(tmp_path, corpus.plan, rank=0, world=2)
    for shard in (0, 4, 6):
        corpus.write_shard(writer, shard)
    with pytest.raises(DatastoreError, match="3 of 10 shards; missing: 1-3, 5, 7-9: run the build command"):
        merge(tmp_path)
    with pytest.raises(DatastoreError, match=r"unfinished.*fairseq-knn merge"):
        Datastore.load(tmp_path)


def test_merge_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DatastoreError, match="holds no datastore, neither finished nor begun"):
            merge(path)


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    Corpus().build(tmp_path)
    before, written = tree(tmp_path), (tmp_path / "manifest.json").stat().st_mtime_ns
    assert merge(tmp_path) == Datastore.load(tmp_path).manifest
    assert tree(tmp_path) == before
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == written


def test_merge_of_a_damaged_datastore_says_so(tmp_path: Path) -> None:
    Corpus().build(tmp_path)
    (tmp_path / "shards/values-00002.npy").unlink()
    with pytest.raises(DatastoreError, match=r"damaged: values-00002\.npy is missing.*--knn-overwrite"):
        merge(tmp_path)


def test_shards_of_different_dimensions(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, Corpus(dimension=5).plan)
    for shard in writer.pending():
        Corpus(dimension=5 if shard < 2 else 6).write_shard(writer, shard)
    with pytest.raises(DatastoreError, match=r"different dimensions \[5, 6\]: delete it"):
        writer.finish()


def test_finished_datastore_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    Corpus().build(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DatastoreError, match=r"holds a finished datastore.*--knn-overwrite"):
        Corpus(seed=1).build(tmp_path)
    assert tree(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    Corpus(sentences=17).build(tmp_path / "new")
    for name in ("index.faiss", "index.json", ".index.faiss.checkpoint", ".index.faiss.7.part"):
        (tmp_path / "new" / name).write_text("of the old keys")
    Corpus(seed=1).build(tmp_path / "new", overwrite=True, key="ffn_input")
    Corpus(seed=1).build(tmp_path / "fresh", key="ffn_input")
    assert tree(tmp_path / "new") == tree(tmp_path / "fresh")


def test_overwriting_nothing(tmp_path: Path) -> None:
    Corpus().build(tmp_path / "one")
    Corpus().build(tmp_path / "other", overwrite=True)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_overwriting_ranks_do_not_delete_each_others_shards(tmp_path: Path) -> None:
    Corpus().build(tmp_path / "many")
    for rank in (1, 0):
        Corpus(seed=1).build(tmp_path / "many", rank=rank, world=2, overwrite=True)
    merge(tmp_path / "many")
    Corpus(seed=1).build(tmp_path / "fresh")
    assert tree(tmp_path / "many") == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model", "d" * 64, "model aaaaaaaaaaaa against dddddddddddd"),
        ("vocabulary", "d" * 64, "vocabulary bbbbbbbbbbbb against dddddddddddd"),
        ("vocabulary_size", 1001, "vocabulary_size 1000 against 1001"),
        ("key", "ffn_input", "key decoder_output against ffn_input"),
        ("split", "valid", "split train against valid"),
        ("data", "d" * 64, "data cccccccccccc against dddddddddddd"),
        ("sentences", 12, "sentences 11 against 12"),
        ("shard_sentences", 4, "shard_sentences 3 against 4"),
    ],
)
def test_other_plan_names_both_sides(tmp_path: Path, field: str, value: Any, told: str) -> None:
    corpus = Corpus()
    corpus.write_shard(DatastoreWriter(tmp_path, corpus.plan), 0)
    before = tree(tmp_path)
    for overwrite in (False, True):  # which replaces finished datastores only
        with pytest.raises(DatastoreError, match=f"unfinished datastore of another plan.*: {told}"):
            DatastoreWriter(tmp_path, replace(corpus.plan, **{field: value}), overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 1}', '"plan"', "3", "null"])
def test_plan_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/plan.json").write_text(content)
    for use in (lambda: DatastoreWriter(tmp_path, Corpus().plan), lambda: merge(tmp_path)):
        with pytest.raises(DatastoreError, match=r"plan\.json .*build it again"):
            use()


def test_plan_of_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/plan.json").write_text('{"schema": 2, "languages": 3}')
    for use in (lambda: DatastoreWriter(tmp_path, Corpus().plan), lambda: merge(tmp_path)):
        with pytest.raises(DatastoreError, match="has format version 2, this package reads version 1"):
            use()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arrays": 3}', '{"arrays": {"keys": {}}}'])
def test_damaged_record_of_a_shard_is_written_again(tmp_path: Path, content: str) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "whole")
    writer = DatastoreWriter(tmp_path / "store", corpus.plan)
    corpus.write_shard(writer, 1)
    (tmp_path / "store/shards/commit-00001.json").write_text(content)
    assert writer.pending() == [0, 1, 2, 3]
    with pytest.raises(DatastoreError, match="0 of 4 shards; missing: 0-3"):
        merge(tmp_path / "store")
    corpus.build(tmp_path / "store")
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_committed_shard_with_damaged_files_is_written_again(tmp_path: Path, damage: str) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "whole")
    corpus.write_shard(DatastoreWriter(tmp_path / "store", corpus.plan), 2)
    path = tmp_path / "store/shards/sentences-00002.npy"
    os.truncate(path, 80) if damage == "truncate" else path.unlink()
    corpus.build(tmp_path / "store")
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")


@pytest.mark.parametrize("below", ["", "below"])
def test_path_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: a file is where a directory is needed"):
        DatastoreWriter(tmp_path / "file" / below, Corpus().plan)


@pytest.mark.parametrize("refused", ["mkdir", "open"])
def test_place_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    # Permissions do not stop root, so the refusal is made here.
    def refuse(path: object, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, refused, refuse)
    with pytest.raises(UserError, match=r"store cannot be written \(Permission denied\)") as caught:
        DatastoreWriter(tmp_path / "store", Corpus().plan)
    assert "choose a place you may write to" in str(caught.value)


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    sentences, length, dimension = 5000, 40, 256  # keys: 102 MB
    plan = replace(Corpus().plan, sentences=sentences, shard_sentences=sentences)
    writer = DatastoreWriter(tmp_path, plan)
    keys = np.random.default_rng(0).normal(size=(20 * length, dimension)).astype(np.float16)
    values, log_probs = np.arange(20 * length), np.zeros(20 * length, np.float32)
    tracemalloc.start()
    try:
        part = writer.open_shard(0)
        for first in reversed(range(0, sentences, 20)):
            part.add(range(first, first + 20), [length] * 20, keys, values, log_probs)
        part.commit()
        writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert Datastore.load(tmp_path).entries == sentences * length
    assert peak < 12e6
