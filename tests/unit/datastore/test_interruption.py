"""A build that was stopped anywhere ends, when it is run again, in the bytes of one that was not."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fairseq_knn.datastore import Datastore, DatastoreWriter, merge
from fairseq_knn.errors import DatastoreError, UserError
from tests.unit.datastore.corpus import Corpus, empty, tree


class PowerCut(BaseException):
    """Nothing runs after it: not even what cleans up."""


# What changes names on the disk; and fsync, when a file is written but has no name yet.
CALLS = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")


@contextlib.contextmanager
def power_cut(after: int) -> Iterator[list[int]]:
    """Let the power fail before the *after*-th change of the disk; yields the number of changes made."""
    made = [0]

    def limited(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if made[0] >= after:
                raise PowerCut
            made[0] += 1
            return call(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, limited(getattr(os, name)))
        # The process that resumes is another one.
        patch.setattr(os, "getpid", lambda: 10_000_000 + after)
        yield made


def cuts(build: Callable[[], None], prepare: Callable[[], None]) -> Iterator[int]:
    """Prepare and run *build* with the power failing at every place in turn."""
    prepare()
    with power_cut(1_000_000) as made:
        build()
    for after in range(made[0]):
        prepare()
        with power_cut(after), contextlib.suppress(PowerCut):
            build()
        yield after


def test_resumed_after_a_power_cut(tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    root, places = tmp_path / "store", 0
    for places in cuts(lambda: corpus.build(root), lambda: cast(None, empty(root))):
        if (root / "manifest.json").exists():
            assert tree(root) == expected
        else:
            with pytest.raises(DatastoreError):
                Datastore.load(root)
            corpus.build(root, order=places)
            assert tree(root) == expected, f"stopped before change {places}"
    assert places > 40


def test_committed_shards_are_not_written_again(tmp_path: Path) -> None:
    corpus = Corpus()
    for _ in cuts(lambda: corpus.build(tmp_path / "store"), lambda: cast(None, empty(tmp_path / "store"))):
        if (tmp_path / "store/manifest.json").exists():
            continue
        commits = list((tmp_path / "store").glob("shards/commit-*.json"))
        pending = DatastoreWriter(tmp_path / "store", corpus.plan).pending()
        assert pending == list(range(len(commits), 4))


def test_two_ranks_resumed_after_power_cuts(tmp_path: Path) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "whole")
    root = tmp_path / "store"

    def begin() -> None:
        corpus.build(empty(root), rank=1, world=2)

    for place in cuts(lambda: corpus.build(root, world=2), begin):
        corpus.build(root, world=2, order=place)
        corpus.build(root)  # nothing is left to do but to merge
        assert tree(root) == tree(tmp_path / "whole")


@pytest.mark.parametrize("insist", [True, False])
def test_overwriting_stopped_anywhere_never_mixes_old_and_new(tmp_path: Path, insist: bool) -> None:
    # Equal plans and sizes, so that only the content can tell old from new.
    old, new = Corpus(seed=0), Corpus(seed=1)
    old.build(tmp_path / "old")
    (tmp_path / "old/index.faiss").write_text("index")
    (tmp_path / "old/index.json").write_text("record")
    new.build(tmp_path / "new")
    before, after = tree(tmp_path / "old"), tree(tmp_path / "new")
    root = tmp_path / "store"

    def begin() -> None:
        shutil.copytree(tmp_path / "old", empty(root))

    refused = 0
    for place in cuts(lambda: new.build(root, overwrite=True), begin):
        with contextlib.suppress(DatastoreError):
            Datastore.load(root)
            assert tree(root) in (before, after), f"stopped before change {place}"
        if (root / "manifest.json").exists() and not insist:
            refused += 1
            with pytest.raises(DatastoreError, match="holds a finished datastore"):
                new.build(root)
        else:
            new.build(root, overwrite=insist, order=place)
            assert tree(root) == after, f"stopped before change {place}"
    assert bool(refused) != insist


@contextlib.contextmanager
def full_disk(part_of_name: str) -> Iterator[None]:
    """Files with this in their name are written to a device that is full."""
    stock = Path.open

    def open_(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        full = part_of_name in path.name and "w" in mode
        if full:
            path.touch()
        return stock(Path("/dev/full") if full else path, mode, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_)
        yield


FULL = [
    "plan",
    "keys-00000.spool",
    "keys-00000.npy",
    "positions-00001",
    "values-00002",
    "log_probs-00002",
    "commit-00003",
    "manifest",
]


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("world", [1, 2])
def test_resumed_after_the_disk_was_full(tmp_path: Path, name: str, world: int) -> None:
    corpus = Corpus()
    corpus.build(tmp_path / "whole")
    root = tmp_path / "store"
    with full_disk(name):
        for rank in range(world):
            with contextlib.suppress(UserError):
                corpus.build(root, rank=rank, world=world)
        with pytest.raises(UserError, match=r"no space left for .*free some space.*same command again"):
            corpus.build(root)
    with pytest.raises(DatastoreError, match="datastore"):
        Datastore.load(root)
    for rank in range(world):
        corpus.build(root, rank=rank, world=world)
    merge(root)
    assert tree(root) == tree(tmp_path / "whole")


def test_full_disk_gets_the_space_of_the_keys_back(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, Corpus().plan)
    before = tree(tmp_path)
    with full_disk("keys-00000.spool"):
        part = writer.open_shard(0)
    assert tree(tmp_path) != before
    with pytest.raises(UserError, match=r"no space left for .*shards"):
        # More than is buffered.
        part.add([0], [5000], np.ones((5000, 512), np.float16), np.zeros(5000, int))
    assert tree(tmp_path) == before
    part.discard()


def test_discarding_writes_nothing(tmp_path: Path) -> None:
    writer = DatastoreWriter(tmp_path, Corpus().plan)
    before = tree(tmp_path)
    with full_disk("keys-00000.spool"):
        part = writer.open_shard(0)
    part.add([0], [1], np.ones((1, 4)), np.zeros(1, int))
    part.discard()
    assert tree(tmp_path) == before


def test_what_another_rank_is_writing_stays(tmp_path: Path) -> None:
    corpus = Corpus()
    other = DatastoreWriter(tmp_path, corpus.plan, rank=1, world=2)
    part = other.open_shard(1)
    before = tree(tmp_path)
    DatastoreWriter(tmp_path, corpus.plan, rank=0, world=2)
    assert tree(tmp_path) == before
    DatastoreWriter(tmp_path, corpus.plan, rank=1, world=2)  # the same one, started again
    assert tree(tmp_path) != before
    part.discard()
