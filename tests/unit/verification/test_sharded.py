"""Every kind of damage is found, whatever else is damaged, and a whole datastore has none."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.datastore import TRANSLATION, Datastore, DatastoreWriter
from fairseq_knn.datastore.description import describe, describe_begun
from fairseq_knn.datastore.layout import ARRAYS, array_path, commit_path, manifest_path
from fairseq_knn.datastore.merging import begun
from fairseq_knn.errors import DatastoreError
from fairseq_knn.verification import findings, open_check
from fairseq_knn.verification.content import Symbols
from fairseq_knn.verification.findings import Vocabulary
from tests.damage import change_manifest, flip, rewrite
from tests.support import write_datastore
from tests.unit.datastore.corpus import Corpus

LENGTHS = [3, 5, 1, 4, 6, 2, 7, 3, 5]  # sentences of three shards, of 9, 12 and 15 entries
EOS = 2


def write(path: Path) -> Path:
    rng = np.random.default_rng(1)
    values = rng.integers(4, 50, sum(LENGTHS))
    values[np.cumsum(LENGTHS) - 1] = EOS
    keys, log_probs = rng.normal(size=(len(values), 6)), -rng.exponential(size=len(values))
    documents = np.arange(len(values)) // 5
    optional = {"log_probs": log_probs, "documents": documents}
    write_datastore(path, keys, values, LENGTHS, 3, vocabulary_size=50, kind=TRANSLATION, **optional)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture(params=[12, 1 << 20], ids=["rows of one", "whole shards"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Blocks of one row and of all: what is found does not depend on where they end."""
    monkeypatch.setattr(findings, "_BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.fixture
def store(whole: Path, tmp_path: Path, block_bytes: int) -> Path:
    """A whole datastore to damage."""
    return Path(shutil.copytree(whole, tmp_path / "store"))


def found(path: Path, vocabulary: Vocabulary | None = None, *, faults: bool = True) -> list[str]:
    """Faults, or else remarks, of which each is one line."""
    told = list(open_check(path, vocabulary).findings(lambda _: None))
    assert not any("\n" in finding.text for finding in told)
    return [finding.text for finding in told if finding.fault == faults]


def the_fault(path: Path) -> str:
    (fault,) = found(path)
    return fault


def test_whole(store: Path) -> None:
    check = open_check(store)
    advanced: list[int] = []
    assert list(check.findings(advanced.append)) == []
    assert sum(advanced) == check.bytes == sum(file.stat().st_size for file in store.glob("shards/*.npy"))
    assert check.figures() == "36 entries in 9 sentences (0 left out), 3 shards"
    assert check.datastore is not None
    assert check.index_is_testable


def test_whole_with_sentences_left_out_and_a_shard_without_entries(tmp_path: Path, block_bytes: int) -> None:
    Corpus(skip=frozenset({4, 6, 7, 8})).build(tmp_path)
    for shard in (0, 1, 3):
        rewrite(tmp_path, "values", shard, lambda values: np.maximum(values, 4).astype(np.int32))
    assert found(tmp_path) == []
    assert "(4 left out), 4 shards" in open_check(tmp_path).figures()


@pytest.mark.parametrize("name", ARRAYS)
def test_flipped_bit(name: str, store: Path) -> None:
    file = array_path(store, name, 1)
    flip(file, -8)  # the lowest bit of a number, so that only sentences, positions and documents become wrong ones
    faults = found(store)
    assert f"{file}: its checksum is " in faults[0]
    assert (
        "restore it, or delete manifest.json and shards/commit-00001.json and run the command that built" in faults[0]
    )
    assert len(faults) == (2 if name in ("sentences", "positions", "documents") else 1)
    assert all(name.removesuffix("s") in fault for fault in faults)


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_and_truncated_files(name: str, store: Path) -> None:
    file = array_path(store, name, 2)
    size = file.stat().st_size
    os.truncate(file, size - 1)
    assert f"{file}: it has {size - 1:,} bytes instead of {size:,}; restore it" in the_fault(store)
    file.unlink()
    assert f"{file}: it is missing; restore it" in the_fault(store)


def test_file_that_cannot_be_read(store: Path) -> None:
    file = array_path(store, "values", 0)
    file.unlink()
    file.mkdir()
    change_manifest(store, lambda manifest: manifest["shards"][0]["arrays"]["values"].update(bytes=file.stat().st_size))
    assert f"{file}: it cannot be read (Is a directory)" in the_fault(store)


def test_any_damaged_header_is_a_fault_of_one_sentence(store: Path) -> None:
    file = array_path(store, "values", 0)
    content = file.read_bytes()
    for position in range(128):
        for wrong in (content[position] ^ 1, 0, ord("("), ord("'")):
            if wrong != content[position]:
                file.write_bytes(content[:position] + bytes([wrong]) + content[position + 1 :])
                assert str(file) in found(store)[0]


def test_array_of_another_shape_or_type(store: Path) -> None:
    rewrite(store, "values", 0, lambda values: values[:-1])
    assert "it holds int32 (8,) instead of int32 (9,)" in the_fault(store)
    rewrite(store, "values", 0, lambda values: np.ones(9, np.float32))
    assert "it holds float32 (9,) instead of int32 (9,)" in the_fault(store)


def set_item(row: int, value: float) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[row] = value

    return change


# Content that is wrong while sizes and checksums are right.
WRONG = [
    ("values", 1, set_item(4, 50), "of 12 values 1 is none of the 50 ids of the vocabulary (in row 4)"),
    ("values", 1, set_item(0, -1), "of 12 values 1 is none of the 50 ids of the vocabulary (in row 0)"),
    ("values", 2, set_item(3, 1), "of 15 values 1 is 1, which is padding and never a target (in row 3)"),
    ("keys", 0, set_item(8, np.nan), "of 9 keys 1 is NaN or infinite (in row 8)"),
    ("keys", 0, set_item(5, -np.inf), "of 9 keys 1 is NaN or infinite (in row 5)"),
    ("keys", 1, set_item(5, -0.0), "of 12 keys 1 is 0 throughout (in row 5)"),
    ("positions", 1, set_item(5, 7), "of 12 positions 1 is not 0, 1, 2, ... within their sentences (in row 5)"),
    ("positions", 1, set_item(0, 1), "of 12 positions 1 is not 0, 1, 2, ... within their sentences (in row 0)"),
    ("sentences", 1, set_item(11, 6), "of 12 sentence numbers 1 is outside of the shard's range 3 to 5 (in row 11)"),
    ("sentences", 1, set_item(0, -1), "of 12 sentence numbers 1 is outside of the shard's range 3 to 5 (in row 0)"),
    ("sentences", 1, set_item(11, 3), "of 12 sentence numbers 1 is smaller than the one before (in row 11)"),
    ("log_probs", 0, set_item(2, np.nan), "of 9 log-probabilities 1 is NaN or infinite (in row 2)"),
    ("log_probs", 1, set_item(0, -np.inf), "of 12 log-probabilities 1 is NaN or infinite (in row 0)"),
    ("log_probs", 2, set_item(14, 0.01), "of 15 log-probabilities 1 is above 0 (in row 14)"),
    ("documents", 1, set_item(3, 0), "of 12 document numbers 1 is smaller than the one before, or negative (in row 3)"),
]


@pytest.mark.parametrize(("name", "shard", "change", "told"), WRONG, ids=[told for *_, told in WRONG])
def test_wrong_content(name: str, shard: int, change: Callable[[np.ndarray], None], told: str, store: Path) -> None:
    rewrite(store, name, shard, change)
    assert f"{array_path(store, name, shard)}: {told}; restore it" in the_fault(store)


def test_one_wrong_number_among_the_keys_is_enough(store: Path) -> None:
    def change(keys: np.ndarray) -> None:
        keys[3, 5], keys[4, 0] = np.nan, np.inf

    rewrite(store, "keys", 2, change)
    assert "of 15 keys 2 are NaN or infinite (the first in row 3)" in the_fault(store)


def cut(root: Path, shard: int, rows: slice) -> None:
    """Take rows out of all arrays of a shard, whose records then are right but for the number of sentences."""
    for name in ARRAYS:
        rewrite(root, name, shard, lambda array: np.delete(array, rows, axis=0))

    def count(manifest: dict) -> None:
        entries = len(np.load(array_path(root, "values", shard)))
        manifest["entries"] += entries - manifest["shards"][shard]["entries"]
        manifest["shards"][shard]["entries"] = entries

    change_manifest(root, count)


def test_missing_sentence(store: Path) -> None:
    cut(store, 1, slice(4, 10))  # sentence 4
    assert "it has 2 sentences, but its record counts 3 (absent: 4); restore it" in the_fault(store)


def test_start_and_end_of_a_sentence_missing(store: Path) -> None:
    cut(store, 1, slice(0, 2))
    assert "of 10 positions 2 are not 0, 1, 2, ... within their sentences (the first in row 0)" in the_fault(store)
    cut(store, 2, slice(14, 15))
    assert len(found(store)) == 1
    assert "missing at the end of 1 of 9 sentences and found 0 times" in found(store, faults=False)[0]


def test_counts_that_disagree(store: Path) -> None:
    def change(manifest: dict) -> None:
        manifest["entries"] += 1
        manifest["skipped"] += 2
        manifest["dimension"] = 7
        manifest["shards"][1]["skipped"] = 1

    change_manifest(store, change)
    faults = found(store)
    assert len(faults) == 4
    assert "counts 37 entries, but there are 36: restore it, or build the datastore again" in faults[0]
    assert "counts 2 sentences left out, but there are 1" in faults[1]
    assert "names keys of dimension 7, but the shards have [6]" in faults[2]
    assert "its record counts 3 sentences and 1 left out, but the shard's range 3 to 5 has 3" in faults[3]


def test_shards_and_arrays_that_the_manifest_lacks(store: Path) -> None:
    def change(manifest: dict) -> None:
        del manifest["shards"][2]
        del manifest["shards"][0]["arrays"]["values"]

    change_manifest(store, change)
    faults = found(store)
    assert len(faults) == 3
    assert "counts 2 shards, but there are 3" in faults[0]
    assert "counts 36 entries, but there are 21" in faults[1]
    assert (
        "has 9 entries, but its record names ['documents', 'keys', 'log_probs', 'positions', 'sentences']" in faults[2]
    )


def test_log_probabilities_are_rounded(store: Path) -> None:
    rewrite(store, "log_probs", 0, set_item(3, 1e-6))
    assert found(store) == []


def without_log_probs(root: Path, *shards: int) -> None:
    """Make shards what an earlier version wrote."""
    for shard in shards:
        array_path(root, "log_probs", shard).unlink()

    def change(manifest: dict) -> None:
        for shard in shards:
            del manifest["shards"][shard]["arrays"]["log_probs"]

    change_manifest(root, change)


def test_log_probabilities_need_not_be_there(store: Path) -> None:
    without_log_probs(store, 1)
    assert found(store) == []
    (remark,) = found(store, faults=False)
    assert "log_probs are there for 2 of 3 shards, so none are used" in remark
    without_log_probs(store, 0, 2)
    assert found(store) == found(store, faults=False) == []
    known = describe(Datastore.load(store))
    assert list(known["bytes"]) == ["keys", "values", "sentences", "positions", "documents"]


def test_several_problems_are_all_told(store: Path) -> None:
    rewrite(store, "values", 0, set_item(4, 50))
    rewrite(store, "keys", 0, set_item(0, np.nan))
    rewrite(store, "positions", 1, set_item(5, 7))
    flip(array_path(store, "values", 1))
    array_path(store, "keys", 2).unlink()
    os.truncate(array_path(store, "sentences", 2), 10)
    rewrite(store, "values", 2, set_item(3, 1))
    faults = found(store)
    expected = ("keys-00000", "values-00000", "values-00001", "values-00001", "positions-00001")
    for name in (*expected, "keys-00002", "sentences-00002", "values-00002"):
        assert any(f"{name}.npy: " in fault for fault in faults), name
    assert len(faults) == 8


@pytest.mark.parametrize(("name", "testable"), [("keys", False), ("positions", True)])
def test_an_index_is_testable_while_the_keys_are_sound(name: str, testable: bool, store: Path) -> None:
    flip(array_path(store, name, 1))
    check = open_check(store)
    assert [finding.fault for finding in check.findings(lambda _: None)] != []
    assert check.index_is_testable == testable


def test_eos_elsewhere_is_no_fault(store: Path) -> None:
    rewrite(store, "values", 0, set_item(2, 9))
    rewrite(store, "values", 1, set_item(1, EOS))
    assert found(store) == []
    (remark,) = found(store, faults=False)
    assert "the id 2" in remark
    assert "missing at the end of 1 of 9 sentences and found 1 times within them" in remark


def test_another_dictionary(store: Path) -> None:
    vocabulary = Vocabulary(Symbols(60), "7" * 64, "dict.en.txt")
    (fault,) = found(store, vocabulary)
    assert "(50 symbols, 111111111111) than dict.en.txt (60 symbols, 777777777777)" in fault
    assert found(store, Vocabulary(Symbols(50), "1" * 64, "dict.en.txt")) == []


def test_special_symbols_are_those_of_the_dictionary(store: Path) -> None:
    (remark,) = found(store, Vocabulary(Symbols(50, padding=3, eos=7), "1" * 64, "dict.en.txt"), faults=False)
    assert "the id 7" in remark
    assert "missing at the end of 9 of 9 sentences" in remark


def test_dropped_keys(store: Path) -> None:
    (store / "shards" / "dropped.json").write_text(json.dumps({"arrays": ["keys"], "sample": ""}))
    for shard in range(3):
        array_path(store, "keys", shard).unlink()
    assert found(store) == []
    assert found(store, faults=False) == ["keys were dropped on purpose: there are none to check"]
    flip(array_path(store, "values", 1), -8)
    assert "restore it, or build the datastore again with --knn-overwrite" in the_fault(store)
    known = describe(Datastore.load(store))
    assert known["dropped"] == ["keys"]
    assert (known["bytes"]["keys"], known["memory"]["exact_search"]) == (0, None)


@pytest.mark.parametrize("name", ["keys", "values"])
def test_told_remedy_mends_a_shard(name: str, tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path)
    before = manifest_path(tmp_path).read_bytes()
    flip(array_path(tmp_path, name, 1))
    told = found(tmp_path)[0]
    for file in (manifest_path(tmp_path), commit_path(tmp_path, 1)):
        assert str(file.relative_to(tmp_path)) in told
        file.unlink()
    assert DatastoreWriter(tmp_path, corpus.plan).pending() == [1]
    corpus.build(tmp_path)
    assert manifest_path(tmp_path).read_bytes() == before
    assert not [fault for fault in found(tmp_path) if "checksum" in fault]


# Unfinished ones.


@pytest.fixture
def half(store: Path) -> Path:
    """The second of three shards is missing."""
    manifest_path(store).unlink()
    commit_path(store, 1).unlink()
    return store


def test_unfinished(half: Path) -> None:
    fault = the_fault(half)
    assert f"{half} is unfinished: it has 2 of 3 shards; missing: 1; run the command that builds it again" in fault
    check = open_check(half)
    assert check.datastore is None
    assert check.figures() == "24 entries in 6 sentences (0 left out), 2 shards"


def test_shards_of_an_unfinished_one_are_checked(half: Path) -> None:
    rewrite(half, "values", 0, set_item(4, 50))
    flip(array_path(half, "keys", 2))
    faults = found(half)
    assert len(faults) == 3
    assert "values-00000.npy: of 9 values 1 is none" in faults[1]
    assert "keys-00002.npy: its checksum is" in faults[2]
    assert "delete shards/commit-00002.json and run the command" in faults[2]


def test_all_shards_there_but_not_merged(store: Path) -> None:
    manifest_path(store).unlink()
    assert "all 3 shards of" in the_fault(store)
    assert f"run `fairseq-knn merge {store}`" in the_fault(store)


@pytest.mark.parametrize(("file", "message"), [("manifest.json", "is damaged"), ("", "there is no datastore in")])
def test_nothing_to_compare_with(file: str, message: str, store: Path) -> None:
    if file:
        (store / file).write_text("{")
    else:
        shutil.rmtree(store)
    with pytest.raises(DatastoreError, match=message):
        open_check(store)


# What a datastore is.


def test_description(whole: Path) -> None:
    known = describe(Datastore.load(whole))
    assert (known["format"], known["state"], known["entries"], known["dimension"]) == (
        "fairseq_knn 1",
        "finished",
        36,
        6,
    )
    assert (known["sentences"], known["left_out"], known["shards"]) == (9, 0, 3)
    assert known["plan"]["vocabulary_size"] == 50
    for name in ARRAYS:
        assert known["bytes"][name] == sum(array_path(whole, name, shard).stat().st_size for shard in range(3))
    assert known["memory"] == {"values": 4 * 36, "exact_search": 36 * (2 * 6 + 4)}
    assert json.loads(json.dumps(known)) == known


def test_description_of_an_unfinished_one(half: Path) -> None:
    plan = begun(half)
    assert plan is not None
    known = describe_begun(half, plan)
    assert (known["state"], known["entries"], known["dimension"]) == ("unfinished", 24, 6)
    assert (known["shards"], known["missing"], known["sentences"]) == (2, [1], 6)
    assert "run the command that builds it again" in known["message"]
    os.truncate(array_path(half, "keys", 0), 5)  # a build that goes on writes it again
    assert describe_begun(half, plan)["missing"] == [0, 1]
