"""Without its keys a datastore is searched by its index alone, and never taken for damaged."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import Datastore, DatastoreWriter, ShardedDatastore
from fairseq_knn.errors import DatastoreError, SearchIndexError
from fairseq_knn.index import open_backend
from fairseq_knn.index.build import build_index
from fairseq_knn.index.dropping import drop_keys
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.retrieval import Retriever
from tests.support import write_datastore

FACTORY = "IVF8,PQ3x4fsr,Refine(SQfp16)"


@pytest.fixture
def store(tmp_path: Path) -> ShardedDatastore:
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(1500, 12))
    keys[100:140] = keys[100]  # duplicates find each other
    made = write_datastore(tmp_path / "store", keys, np.arange(1500) % 1000, shard_sentences=50)
    assert isinstance(made, ShardedDatastore)
    build_index(made, FACTORY, device="cpu", nprobe=8, min_recall=0)
    return made


def key_files(path: Path) -> list[Path]:
    return sorted(path.glob("shards/keys-*.npy"))


def test_search_is_the_same_without_keys(store: ShardedDatastore) -> None:
    queries = torch.from_numpy(store.keys(0, 200)).float()
    before = Retriever(store, k=5, backend="faiss", device="cpu").retrieve(queries)
    size = sum(file.stat().st_size for file in key_files(store.path))
    assert drop_keys(store) == size
    assert not key_files(store.path)
    dropped = Datastore.load(store.path)
    assert (dropped.entries, dropped.has_keys, dropped.digest) == (1500, False, store.digest)
    after = Retriever(dropped, k=5, device="cpu").retrieve(queries)  # auto: nothing but the index is left
    assert torch.equal(after.ids, before.ids)
    assert torch.equal(after.distances, before.distances)
    np.testing.assert_array_equal(dropped.values, store.values)


def test_what_needs_keys_says_so(store: ShardedDatastore) -> None:
    drop_keys(store)
    dropped = Datastore.load(store.path)
    for use in (
        lambda: open_backend(dropped, backend="torch", device="cpu"),
        lambda: dropped.keys(0, 3),
        lambda: dropped.gather_keys(np.array([1])),
        lambda: build_index(dropped, "flat", device="cpu"),
    ):
        with pytest.raises(DatastoreError, match=r"were dropped when its index was built, .*needs them: use its index"):
            use()


def test_the_index_is_still_tested_when_it_is_opened(store: ShardedDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_keys(store)
    dropped = Datastore.load(store.path)
    open_backend(dropped, backend="faiss", device="cpu")
    nothing = torch.ones(32, 8), torch.full((32, 8), -1)
    monkeypatch.setattr(FaissSearch, "search", lambda *_: nothing)
    with pytest.raises(SearchIndexError, match=r"stored keys looked up in .* find themselves"):
        open_backend(dropped, backend="faiss", device="cpu")
    monkeypatch.undo()
    kept = store.path / "shards/sample.npy"
    for content in (kept.read_bytes()[:-1] + b"x", b"no array", b""):
        kept.write_bytes(content)
        with pytest.raises(DatastoreError, match=r"sample\.npy, the keys that were kept .*, is damaged: restore it"):
            open_backend(dropped, backend="faiss", device="cpu")
    kept.unlink()
    with pytest.raises(DatastoreError, match=r"sample\.npy, .*, is missing: restore it"):
        open_backend(dropped, backend="faiss", device="cpu")


def test_interrupted_at_any_file(store: ShardedDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(key_files(store.path))
    stock = Path.unlink
    for moment in (0, 3, count - 1):
        copy = store.path.with_name(f"copy {moment}")
        shutil.copytree(store.path, copy)
        calls = []

        def unlink(path: Path, moment: int = moment, calls: list[Path] = calls, **options: bool) -> None:
            if path.name.startswith("keys-"):
                if len(calls) == moment:
                    raise KeyboardInterrupt
                calls.append(path)
            stock(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            with pytest.raises(KeyboardInterrupt):
                drop_keys(Datastore.load(copy))
        assert len(key_files(copy)) == count - moment
        half = Datastore.load(copy)
        assert not half.has_keys
        open_backend(half, device="cpu")
        drop_keys(half)
        assert not key_files(copy)
        assert drop_keys(Datastore.load(copy)) == 0


def test_only_with_a_whole_index(store: ShardedDatastore, tmp_path: Path) -> None:
    bare = write_datastore(tmp_path / "bare", np.eye(12), np.arange(12))
    with pytest.raises(SearchIndexError, match="has no search index"):
        drop_keys(bare)
    with (store.path / "index.faiss").open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        byte = file.read(1)
        file.seek(-9, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(SearchIndexError, match="is damaged: it has checksum"):
        drop_keys(store)
    assert key_files(store.path)
    assert Datastore.load(store.path).has_keys


def test_built_anew_it_has_keys_again(store: ShardedDatastore) -> None:
    drop_keys(store)
    DatastoreWriter(store.path, store.plan, overwrite=True)
    assert not (store.path / "shards/dropped.json").exists()


def test_damaged_note(store: ShardedDatastore) -> None:
    drop_keys(store)
    for content in ("[]", '{"keys": 1}', '{"arrays": ["keys"]}', "{"):
        (store.path / "shards/dropped.json").write_text(content)
        with pytest.raises(DatastoreError, match=r"dropped\.json"):
            Datastore.load(store.path)


def test_command(store: ShardedDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["build-index", str(store.path), "--knn-index", FACTORY, "--knn-nprobe", "8", "--min-recall", "0"]
    assert main([*arguments, "--drop-keys"]) == 0
    assert "are dropped (0.0 MB); only its index can be searched" in capsys.readouterr().out
    assert main([*arguments, "--drop-keys"]) == 0  # once more
    assert main(["build-index", str(store.path)]) == 1
    assert "were dropped" in capsys.readouterr().err


def test_a_manifest_that_is_lost_after_dropping(store: ShardedDatastore) -> None:
    """The build that is then told to run again writes the keys anew, and they count."""
    drop_keys(store)
    (store.path / "manifest.json").unlink()
    writer = DatastoreWriter(store.path, store.plan)
    assert writer.pending() == list(range(len(store.shard_entries)))
    assert not (store.path / "shards/dropped.json").exists()
    assert not (store.path / "shards/sample.npy").exists()
