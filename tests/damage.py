"""Damaging a datastore in one place at a time."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.layout import array_path, commit_path, manifest_path
from fairseq_knn.datastore.manifest import ArrayRecord
from fairseq_knn.storage.digest import file_digest


def flip(file: Path, position: int = -1) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def change_manifest(root: Path, change: Callable[[dict], None]) -> None:
    """Edit ``manifest.json``, or the commits if the datastore is unfinished."""
    files = [manifest_path(root)] if manifest_path(root).exists() else sorted(root.glob("shards/commit-*.json"))
    for file in files:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))


def rewrite(root: Path, name: str, shard: int, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Change an array so that only its content is wrong: size and checksum are recorded again.

    Args:
        root: directory of the datastore.
        name, shard: the array.
        change: edits it in place, or gives another.
    """
    file = array_path(root, name, shard)
    array = np.load(file)
    changed = change(array)
    np.save(file, array if changed is None else changed)
    record = asdict(ArrayRecord(file.stat().st_size, file_digest(file)))
    if manifest_path(root).exists():
        change_manifest(root, lambda manifest: manifest["shards"][shard]["arrays"].update({name: record}))
    commit = commit_path(root, shard)
    content = json.loads(commit.read_text())
    content["arrays"][name] = record
    commit.write_text(json.dumps(content))
