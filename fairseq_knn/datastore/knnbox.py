"""Reading the datastores of knn-box and adaptive-knn-mt as they are.

knn-box's directory holds ``keys.npy`` and ``vals.npy``, which are no .npy files but the bare numbers, and
``config.json`` with their shapes and types. adaptive-knn-mt writes the same two files and no description: their
shape has to be told (``fairseq-knn convert``). Keys are the decoder's output in both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_knn.datastore.bare import MAKE_IT_AGAIN, BareArray, BareDatastore, fitting_sizes
from fairseq_knn.datastore.layout import manifest_path
from fairseq_knn.errors import DatastoreError, UserError
from fairseq_knn.storage.atomic import read_json

# As knn-box writes numpy's and torch's names of types.
_FLOATS = {"float16": np.float16, "float32": np.float32, "float": np.float32}
_INDEX = "keys.faiss_index"


class KnnboxDatastore(BareDatastore):
    """A datastore that knn-box or adaptive-knn-mt wrote.

    Entries of one sentence follow each other; sentences are in the order they were batched. The values are int64 (N,)
    or (N, 1).
    """

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
    def undescribed(
        cls, path: Path, *, dimension: int, entries: int | None = None, key_dtype: str | None = None
    ) -> "KnnboxDatastore":
        """Open a datastore of adaptive-knn-mt.

        Args:
            path: its directory.
            dimension: of its keys, d.
            entries: N, and
            key_dtype: ``float16`` (written with --dstore-fp16) or ``float32``: the sizes of the files tell both.

        Raises:
            DatastoreError: a file is missing, or its size is not that of such entries.
        """
        keys, values = path / "keys.npy", path / "vals.npy"
        for file in (keys, values):
            if not file.exists():
                raise DatastoreError(f"{file} is missing: name the directory that holds keys.npy and vals.npy")
        sizes = fitting_sizes(
            keys, values, value_dtypes=(np.int64,), entries=entries, dimension=dimension, key_dtype=key_dtype
        )
        return cls(
            path,
            BareArray(keys, (sizes.entries, sizes.dimension), sizes.key_dtype),
            BareArray(values, (sizes.entries,), sizes.value_dtype),
        )

    @property
    def key(self) -> str:
        return "decoder_output"

    @property
    def foreign_index(self) -> Path | None:
        path = self.path / _INDEX
        return path if path.exists() else None


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
