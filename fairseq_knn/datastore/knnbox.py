"""Reading the datastores of knn-box and adaptive-knn-mt as they are.

knn-box's directory holds ``keys.npy`` and ``vals.npy``, which are no .npy files but the bare numbers, and
``config.json`` with their shapes and types. adaptive-knn-mt writes the same two files and no description: their
shape has to be told (``fairseq-knn convert``). Keys are the decoder's output in both.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.datastore.layout import manifest_path
from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.storage.atomic import read_json

# As knn-box writes numpy's and torch's names of types.
_FLOATS = {"float16": np.float16, "float32": np.float32, "float": np.float32}
_INDEX = "keys.faiss_index"
_KEYS_IN_DIGEST = 1024
MAKE_IT_AGAIN = "restore it from where it was made, or build a datastore with --knn-mode build_datastore"


@dataclass(frozen=True)
class BareArray:
    """A file of numbers without a header."""

    path: Path
    shape: tuple[int, ...]
    dtype: type

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def check(self) -> None:
        """
        Raises:
            DatastoreError: the file is missing or has another size.
        """
        if not self.path.exists():
            raise DatastoreError(f"{self.path} is missing: {MAKE_IT_AGAIN}")
        if (size := self.path.stat().st_size) != self.bytes:
            raise DatastoreError(
                f"{self.path} has {size:,} bytes, but {self.shape} numbers of type {np.dtype(self.dtype)} take "
                f"{self.bytes:,}: {MAKE_IT_AGAIN}"
            )

    def map(self) -> np.ndarray:
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)


class KnnboxDatastore(Datastore):
    """A datastore that knn-box or adaptive-knn-mt wrote.

    It says neither which model nor which dictionary it was built with, so that cannot be checked, and it has no
    checksums. Entries of one sentence follow each other; sentences are in the order they were batched.

    Args:
        path: its directory.
        keys: float16 or float32 (N, d).
        values: int64 (N,) or (N, 1).

    Raises:
        DatastoreError: a file is missing or has another size.
    """

    def __init__(self, path: Path, keys: BareArray, values: BareArray) -> None:
        keys.check()
        values.check()
        if not keys.shape[0]:
            raise DatastoreError(f"{path} has no entries: {MAKE_IT_AGAIN}")
        super().__init__(path, [keys.shape[0]], keys.shape[1], keys.dtype)
        self._keys, self._values = keys, values

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether *path* looks like a directory of these toolkits."""
        return not manifest_path(path).exists() and ((path / "config.json").exists() or (path / "vals.npy").exists())

    @classmethod
    def open(cls, path: Path) -> "KnnboxDatastore":
        """Open a datastore that describes itself, as knn-box's do.

        Raises:
            DatastoreError: ``config.json`` is missing or damaged, or does not fit to the files.
        """
        return cls(path, *cls.described(path))

    @staticmethod
    def described(path: Path) -> tuple[BareArray, BareArray]:
        """Keys and values as ``config.json`` describes them; their files are not looked at.

        Raises:
            DatastoreError: ``config.json`` is missing or damaged.
        """
        source = path / "config.json"
        try:
            config = read_json(source)
            keys = _described(path, config, "keys", dimensions=2)
            values = _described(path, config, "vals", dimensions=1)
        except FileNotFoundError:
            raise DatastoreError(
                f"{path} has keys.npy and vals.npy, but neither a manifest nor knn-box's config.json: if "
                f"adaptive-knn-mt wrote it, use `fairseq-knn convert {path} NEW DATA --path BASE.pt --dimension D`"
            ) from None
        except UserError as error:
            raise DatastoreError(str(error)) from error
        if keys.shape[0] != values.shape[0]:
            raise DatastoreError(
                f"{source} names {keys.shape[0]:,} keys and {values.shape[0]:,} values, which must be as many: "
                f"{MAKE_IT_AGAIN}"
            )
        return keys, values

    @classmethod
    def undescribed(cls, path: Path, dimension: int, key_dtype: str) -> "KnnboxDatastore":
        """Open a datastore of adaptive-knn-mt.

        Args:
            path: its directory.
            dimension: of its keys, d.
            key_dtype: ``float16`` (written with --dstore-fp16) or ``float32``.

        Raises:
            DatastoreError: a file is missing, or its size is no multiple of what an entry takes.
        """
        values = path / "vals.npy"
        if not values.exists():
            raise DatastoreError(f"{values} is missing: name the directory that holds keys.npy and vals.npy")
        entries = values.stat().st_size // 8
        keys = path / "keys.npy"
        size = keys.stat().st_size if keys.exists() else 0
        if entries and size and size != entries * dimension * np.dtype(_FLOATS[key_dtype]).itemsize:
            fitting = " or ".join(
                f"--dimension {size // (entries * np.dtype(kind).itemsize)} --key-dtype {name}"
                for name, kind in _FLOATS.items()
                if name != "float" and size % (entries * np.dtype(kind).itemsize) == 0
            )
            raise DatastoreError(
                f"{keys} has {size:,} bytes for {entries:,} entries, not those of {key_dtype} keys of dimension "
                f"{dimension}: {f'pass {fitting}' if fitting else MAKE_IT_AGAIN}"
            )
        return cls(
            path,
            BareArray(path / "keys.npy", (entries, dimension), _FLOATS[key_dtype]),
            BareArray(values, (entries,), np.int64),
        )

    @property
    def plan(self) -> None:
        return None

    @property
    def key(self) -> str:
        return "decoder_output"

    @property
    def has_keys(self) -> bool:
        return True

    @property
    def array_bytes(self) -> dict[str, int]:
        return {"keys": self._keys.bytes, "values": self._values.bytes}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over shapes, types, values and some of the keys; all of them are too many to be read for it."""
        digest = hashlib.sha256(f"{self._keys.shape} {np.dtype(self._keys.dtype)}".encode())
        some = np.unique(np.linspace(0, self.entries - 1, _KEYS_IN_DIGEST).astype(np.int64))
        for array in (self.values, self.gather_keys(some)):
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        return digest.hexdigest()

    @cached_property
    def values(self) -> np.ndarray:
        values = self._values.map().reshape(-1)
        if values.size and not 0 <= values.min() <= values.max() < 2**31:
            raise DatastoreError(
                f"{self._values.path} holds numbers from {values.min()} to {values.max()}, which are no tokens: "
                f"{MAKE_IT_AGAIN}"
            )
        return values.astype(np.int32)

    @property
    def foreign_index(self) -> Path | None:
        path = self.path / _INDEX
        return path if path.exists() else None

    def verify_keys(self, shard: int) -> None:
        del shard  # there are no checksums to compare with

    def _open_keys(self, shard: int) -> np.ndarray:
        return self._keys.map()


def _described(path: Path, config: Any, name: str, dimensions: int) -> BareArray:
    """The array *name* as ``config.json`` describes it; the first *dimensions* axes (further ones must be 1)."""
    source = path / "config.json"
    try:
        if name not in config["data_infos"]:
            raise DatastoreError(
                f"{source} names no {name!r} among {', '.join(sorted(config['data_infos'])) or 'nothing'}: it is not "
                f"the description of a datastore, or the build did not finish; {MAKE_IT_AGAIN}"
            )
        info = config["data_infos"][name]
        shape: Sequence[int] = [int(size) for size in info["shape"]]
        kind = str(info["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatastoreError(f"{source} does not describe a datastore ({error}): {MAKE_IT_AGAIN}") from error
    if len(shape) < dimensions or any(size != 1 for size in shape[dimensions:]):
        raise DatastoreError(f"{source} gives {name!r} the shape {shape}: {MAKE_IT_AGAIN}")
    return BareArray(path / f"{name}.npy", tuple(shape[:dimensions]), _dtype(kind, source))


def _dtype(kind: str, source: Path) -> type:
    """numpy's type of what knn-box wrote: ``<class 'int'>``, ``torch.float16``, ``<class 'numpy.float16'>``, ..."""
    name = kind.removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
    if name.startswith("int"):
        return np.int64  # knn-box widens all of them
    if name not in _FLOATS:
        raise DatastoreError(f"{source} names the type {kind}, which no datastore has: {MAKE_IT_AGAIN}")
    return _FLOATS[name]
