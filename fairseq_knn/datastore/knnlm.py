"""Reading the datastores of kNN-LM, RetoMaton and knn-transformers.

All write the bare numbers of ``PREFIX_keys.npy`` and ``PREFIX_vals.npy``, which are no .npy files. Some prefixes tell
the sizes: knn-transformers' is ``dstore_{model type}_{N}_{d}``, and the store that RetoMaton published was written by
efficient-knnlm, whose prefixes end in ``_size{N}_embed{d}_fp16`` or ``_fp32``.

================  =================  =================
written by        keys               values
================  =================  =================
kNN-LM            float32            int64
" --dstore-fp16   float16            int16
RetoMaton         float16, float32   int64
knn-transformers  float16            int32
================  =================  =================

The keys are the input of the last feed-forward block, unless the toolkit was told otherwise.
"""

import re
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.bare import BareArray, BareDatastore, fitting_sizes
from fairseq_knn.errors import DatastoreError

_HALVES = ("_keys.npy", "_vals.npy")
_SIZES_IN_NAME = (
    re.compile(r"_size(?P<entries>\d+)_embed(?P<dimension>\d+)_fp(?P<bits>16|32)$"),
    re.compile(r"^dstore_.+_(?P<entries>\d+)_(?P<dimension>\d+)$"),
)


class KnnlmDatastore(BareDatastore):
    """A datastore that kNN-LM, RetoMaton, efficient-knnlm or knn-transformers wrote.

    Its entries are in the order of the batches, which is that of the text or of the length of its blocks.
    """

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        entries: int | None = None,
        dimension: int | None = None,
        key_dtype: str | None = None,
    ) -> "KnnlmDatastore":
        """Open a datastore by its prefix.

        Args:
            path: what comes before ``_keys.npy`` and ``_vals.npy``, or a directory with the files of one datastore.
            entries: N; the name and the sizes of the files tell, too.
            dimension: of its keys, d; the same.
            key_dtype: ``float16`` or ``float32``; the same.

        Raises:
            DatastoreError: there is none, or several; a file is missing; or its size is not that of such entries.
        """
        prefix = _prefix(path)
        keys, values = (prefix.with_name(prefix.name + half) for half in _HALVES)
        for file, other in ((keys, values), (values, keys)):
            if not file.exists():
                raise DatastoreError(
                    f"{file} is missing beside {other.name}: copy it there, too, from where the datastore was made"
                )
        named = next((found for pattern in _SIZES_IN_NAME if (found := pattern.search(prefix.name))), None)
        told = named.groupdict() if named else {}
        sizes = fitting_sizes(
            keys,
            values,
            value_dtypes=(np.int16, np.int32, np.int64),
            entries=entries or _number(told.get("entries")),
            dimension=dimension or _number(told.get("dimension")),
            key_dtype=key_dtype or (f"float{told['bits']}" if "bits" in told else None),
        )
        return cls(
            prefix,
            BareArray(keys, (sizes.entries, sizes.dimension), sizes.key_dtype),
            BareArray(values, (sizes.entries,), sizes.value_dtype),
        )

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether *path* is what comes before the names of such files, or a directory of them."""
        names = [f"{path.name}{half}" for half in _HALVES]
        return any(path.with_name(name).exists() for name in names) or any(
            True for half in _HALVES for _ in path.glob(f"*{half}")
        )

    @property
    def key(self) -> str:
        return "ffn_input"


def _prefix(path: Path) -> Path:
    if not path.is_dir():
        if any(path.with_name(path.name + half).exists() for half in _HALVES):
            return path
        raise DatastoreError(
            f"there is neither {path}{_HALVES[0]} nor {path}{_HALVES[1]}: name what comes before _keys.npy and "
            "_vals.npy, or their directory"
        )
    found = sorted({file.name.removesuffix(half) for half in _HALVES for file in path.glob(f"*{half}")})
    if not found:
        raise DatastoreError(
            f"{path} has neither keys.npy and vals.npy, as knn-box and adaptive-knn-mt write them, nor files "
            f"*{_HALVES[0]} and *{_HALVES[1]}, as kNN-LM, RetoMaton and knn-transformers do: name the directory of a "
            "datastore"
        )
    if len(found) > 1:
        raise DatastoreError(f"{path} has the datastores {', '.join(found)}: name one of them, as {path / found[0]}")
    return path / found[0]


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
