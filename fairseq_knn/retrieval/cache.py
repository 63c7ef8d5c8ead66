"""What base model and search give for every position of a split, kept on disk.

The base of a combiner is frozen, so its training asks the same questions in every epoch. A cache is a directory with
``plan.json`` (what it was made from) and one file of arrays for every so many sentences, each of which appears when it
is complete: an interrupted run goes on where it was, and several processes can share the work.
"""

import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.storage.atomic import (
    PARTIAL_SUFFIX,
    atomic_path,
    directory_lock,
    make_directory,
    read_json,
    write_json,
)

SCHEMA = 1
SHARD_SENTENCES = 2048
_PLAN = "plan.json"
_LENGTHS = "lengths"
_STALE_SECONDS = 3600  # writing a shard takes some seconds
_OPEN_SHARDS = 256  # a memory mapping holds its file open


class RetrievalCache:
    """Arrays with one row for every token of a split, read by sentence.

    Args:
        directory: of this split.
        plan: what the content depends on, as JSON; another plan is refused.
        sentences: of the split.

    Raises:
        ConfigurationError: the directory holds the retrieval of another plan.
        UserError: it cannot be written.
    """

    def __init__(self, directory: Path, plan: Mapping[str, Any], sentences: int) -> None:
        self.directory, self.sentences = directory, sentences
        self.shards = -(-sentences // SHARD_SENTENCES)
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        make_directory(directory)
        wanted = {"schema": SCHEMA, "shard_sentences": SHARD_SENTENCES, "sentences": sentences, **plan}
        with directory_lock(directory):
            self._remove_leftovers()
            try:
                found = read_json(directory / _PLAN)
            except FileNotFoundError:
                write_json(directory / _PLAN, wanted)
                return
        for name, value in wanted.items():
            if (theirs := found.get(name)) != value:
                raise ConfigurationError(
                    f"{directory} is the cache of another retrieval ({name} {_shorten(theirs)}, this run has "
                    f"{_shorten(value)}): name another directory with --knn-cache, or delete this one"
                )

    @property
    def complete(self) -> bool:
        """Whether every sentence has been written."""
        return not self.pending()

    def pending(self, rank: int = 0, world: int = 1) -> list[int]:
        """Shards that this process has to write."""
        return [shard for shard in range(rank, self.shards, world) if not self._path(shard).exists()]

    def sentence_range(self, shard: int) -> tuple[int, int]:
        """First and one past the last sentence of *shard*."""
        return shard * SHARD_SENTENCES, min((shard + 1) * SHARD_SENTENCES, self.sentences)

    def write(self, shard: int, lengths: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a shard.

        Args:
            shard: its number.
            lengths: tokens of each of its sentences, 0 for one that was left out, int32 (n,).
            arrays: one row for every token of the sentences in order.

        Raises:
            UserError: it cannot be written.
        """
        with atomic_path(self._path(shard)) as temporary:
            content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            # save_file would let nobody else read it.
            temporary.write_bytes(safetensors.numpy.save({_LENGTHS: lengths.astype(np.int32), **content}))

    def _remove_leftovers(self) -> None:
        """Delete what interrupted runs left behind, but not what another run is writing right now."""
        for leftover in self.directory.glob(f".*{PARTIAL_SUFFIX}"):
            with contextlib.suppress(OSError):  # renamed or deleted in the meantime, or a directory that is read only
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink()

    def read(self, sentences: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Rows of some sentences, one sentence after the other.

        Args:
            sentences: int64 (B,).
            lengths: how many tokens each of them has, int64 (B,).

        Raises:
            UserError: a file is missing or damaged, or the split has other sentences.
        """
        starts = np.concatenate([[0], np.cumsum(lengths)])
        result: dict[str, np.ndarray] = {}
        numbers = sentences // SHARD_SENTENCES
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            shard = self._shard(int(number))
            inside = sentences[chosen] - number * SHARD_SENTENCES
            if (shard.lengths[inside] != lengths[chosen]).any():
                raise UserError(
                    f"{self.directory} does not hold the sentences of this split: delete it, and it is made again"
                )
            rows = _ranges(shard.starts[inside], lengths[chosen])
            places = _ranges(starts[chosen], lengths[chosen])
            for name, array in shard.arrays.items():
                if name not in result:
                    result[name] = np.empty((starts[-1], *array.shape[1:]), array.dtype)
                result[name][places] = array[rows]
        return result

    def _path(self, shard: int) -> Path:
        return self.directory / f"{shard:05d}.safetensors"

    def _shard(self, number: int) -> "_Shard":
        if number not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[number] = _Shard(self._path(number))
        self._open.move_to_end(number)
        return self._open[number]


class _Shard:
    """The arrays of one file, memory mapped."""

    def __init__(self, path: Path) -> None:
        try:
            content = np.memmap(path, np.uint8, mode="r")
            header_bytes = int(content[:8].view(np.uint64)[0])
            header = json.loads(bytes(content[8 : 8 + header_bytes]))
            data = content[8 + header_bytes :]
            arrays = {}
            for name, about in header.items():
                if name != "__metadata__":
                    first, last = about["data_offsets"]
                    arrays[name] = data[first:last].view(_DTYPES[about["dtype"]]).reshape(about["shape"])
            self.lengths = np.asarray(arrays.pop(_LENGTHS), np.int64)
        except Exception as error:  # whatever numpy and json make of damaged files
            raise UserError(
                f"{path} is missing or damaged ({error}): delete it, and the next run writes it again"
            ) from error
        self.arrays = arrays
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])


_DTYPES = {"F16": np.float16, "F32": np.float32, "I16": np.int16, "I32": np.int32, "I64": np.int64}


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[s, s + 1, ..., s + l - 1]`` for every start and length, one after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


def _shorten(value: Any) -> Any:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
