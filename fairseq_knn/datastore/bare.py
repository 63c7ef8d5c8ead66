"""Datastores of other toolkits: two files of bare numbers, which no header describes."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.datastore import Datastore
from fairseq_knn.errors import DatastoreError

KEY_DTYPES: tuple[type, ...] = (np.float16, np.float32)
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


@dataclass(frozen=True)
class Sizes:
    """What a file of keys and one of values may hold.

    Args:
        entries: N.
        dimension: of the keys, d.
        key_dtype: numpy's type of the keys.
        value_dtype: numpy's type of the values.
    """

    entries: int
    dimension: int
    key_dtype: type
    value_dtype: type

    def __str__(self) -> str:
        return f"--entries {self.entries} --dimension {self.dimension} --key-dtype {np.dtype(self.key_dtype)}"


def fitting_sizes(
    keys: Path,
    values: Path,
    *,
    value_dtypes: tuple[type, ...],
    entries: int | None = None,
    dimension: int | None = None,
    key_dtype: str | None = None,
) -> Sizes:
    """What two files hold, as far as their own sizes tell.

    Args:
        keys, values: the files; both exist.
        value_dtypes: types the values may have.
        entries, dimension, key_dtype: what is known of the datastore; ``None`` if that is not.

    Raises:
        DatastoreError: the sizes of the files do not go with what is known (what would is named), or leave it open.
    """
    sizes = {path: path.stat().st_size for path in (keys, values)}
    told = f"{keys} ({sizes[keys]:,} bytes) and {values} ({sizes[values]:,} bytes)"
    known = (entries, dimension, key_dtype)

    def agreeing(possible: Sizes) -> int:
        has = (possible.entries, possible.dimension, np.dtype(possible.key_dtype).name)
        return sum(value is not None and value == own for value, own in zip(known, has, strict=True))

    possible = list(_possible_sizes(sizes[keys], sizes[values], value_dtypes))
    asked = sum(value is not None for value in known)
    fitting = [one for one in possible if agreeing(one) == asked]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = " or ".join(f"`{one}`" for one in fitting)
        raise DatastoreError(f"{told} may hold several things: pass {choices}, whichever is right")
    names = ("entries", "dimension", "keys of")
    wanted = ", ".join(f"{name} {value}" for name, value in zip(names, known, strict=True) if value is not None)
    near = max(map(agreeing, possible), default=0)
    choices = " or ".join(f"`{one}`" for one in possible if agreeing(one) == near)
    raise DatastoreError(
        f"{told} do not fit to {wanted or 'each other'}: " + (f"pass {choices}" if choices else MAKE_IT_AGAIN)
    )


def _possible_sizes(key_bytes: int, value_bytes: int, value_dtypes: tuple[type, ...]) -> list[Sizes]:
    found = []
    for value_dtype in value_dtypes:
        entries, rest = divmod(value_bytes, np.dtype(value_dtype).itemsize)
        for key_dtype in KEY_DTYPES:
            row = entries * np.dtype(key_dtype).itemsize
            if not rest and row and key_bytes and key_bytes % row == 0:
                found.append(Sizes(entries, key_bytes // row, key_dtype, value_dtype))
    return found


class BareDatastore(Datastore):
    """A datastore that another toolkit wrote.

    It says neither which model nor which dictionary it was built with, so that cannot be checked, and it has no
    checksums.

    Args:
        path: where it is.
        keys: float16 or float32 (N, d).
        values: int16, int32 or int64 (N,) or (N, 1).

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

    @property
    def plan(self) -> None:
        return None

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
            if self._values.dtype is np.int16:
                raise DatastoreError(
                    f"{self._values.path} holds negative tokens: kNN-LM's --dstore-fp16 stores tokens as int16, which "
                    "those beyond 32,767 overflow; build the datastore again, with --knn-mode build_datastore"
                )
            raise DatastoreError(
                f"{self._values.path} holds numbers from {values.min()} to {values.max()}, which are no tokens: "
                f"{MAKE_IT_AGAIN}"
            )
        return values.astype(np.int32)

    def verify_keys(self, shard: int) -> None:
        del shard  # there are no checksums to compare with

    def _open_keys(self, shard: int) -> np.ndarray:
        return self._keys.map()
