"""Names of the files of a datastore directory.

::

    manifest.json                 what the datastore is; written last, so its presence means "finished"
    shards/plan.json              what is being built; written first, so that a resumed run can compare
    shards/keys-00000.npy         float16 (n, d), real .npy files
    shards/values-00000.npy       target token ids (n,)
    shards/sentences-00000.npy    index of the sentence in its split (n,)
    shards/positions-00000.npy    position in the target sentence, from 0 (n,)
    shards/log_probs-00000.npy    float32 log-probability the model gave the token in its place (n,)
    shards/documents-00000.npy    number of the document of a language model's token (n,)
    shards/commit-00000.json      the shard is complete: sizes and checksums of its arrays
    shards/dropped.json           arrays that were deleted on purpose (the keys, when the index is enough)
    shards/sample.npy             a few of the dropped keys, to test the index with
    index.faiss, index.json       search index and what it was built from
    index.ivfdata                 the lists of an index whose lists stay on disk
    clusters-NAME.npz             clusters of entries

A language model's text comes in blocks: those are its sentences.
"""

from pathlib import Path

SCHEMA_VERSION = 1
ARRAYS = ("keys", "values", "sentences", "positions", "log_probs", "documents")
# Datastores that were converted, built by an earlier version, or are no language model's lack some of these.
OPTIONAL_ARRAYS = frozenset({"log_probs", "documents"})


def manifest_path(root: Path) -> Path:
    return root / "manifest.json"


def shards_directory(root: Path) -> Path:
    return root / "shards"


def plan_path(root: Path) -> Path:
    return shards_directory(root) / "plan.json"


def array_path(root: Path, name: str, shard: int) -> Path:
    return shards_directory(root) / f"{name}-{shard:05d}.npy"


def commit_path(root: Path, shard: int) -> Path:
    return shards_directory(root) / f"commit-{shard:05d}.json"


def index_path(root: Path) -> Path:
    return root / "index.faiss"


def index_lists_path(root: Path) -> Path:
    return root / "index.ivfdata"


def index_record_path(root: Path) -> Path:
    return root / "index.json"


def clusters_path(root: Path, name: str) -> Path:
    return root / f"clusters-{name}.npz"


def dropped_path(root: Path) -> Path:
    return shards_directory(root) / "dropped.json"


def sample_path(root: Path) -> Path:
    return shards_directory(root) / "sample.npy"
