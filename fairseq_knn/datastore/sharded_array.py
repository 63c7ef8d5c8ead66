"""One array of a datastore, in as many files as there are shards."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# A mapping holds its file open, and a process may have 1,024 open files (the usual limit). Of each array more
# shards than these are opened again whenever they are read.
_KEPT_MAPS = 256


class ShardedArray:
    """Rows that stay on disk, memory mapped, until they are asked for.

    ``array[start:stop]`` gives consecutive rows and ``array[ids]`` those of integers of any shape, both in memory;
    ``numpy.asarray`` reads it all.

    Args:
        shard_rows: number of rows of each shard.
        row_shape: shape of a row.
        dtype: of the numbers.
        open_shard: gives the rows of a shard that has some, memory mapped.
        verify: compares a shard with its checksum, if it has one; raises DatastoreError when they differ.
    """

    def __init__(
        self,
        shard_rows: Sequence[int],
        row_shape: tuple[int, ...],
        dtype: np.typing.DTypeLike,
        open_shard: Callable[[int], np.ndarray],
        verify: Callable[[int], None],
    ) -> None:
        self.starts = np.cumsum([0, *shard_rows])
        self.shape = (int(self.starts[-1]), *row_shape)
        self.dtype = np.dtype(dtype)
        self._open, self._verify = open_shard, verify
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._consecutive(start, stop)[::step]
        return self._chosen(np.asarray(rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # what is read from the disk is always new
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def verified(self) -> np.ndarray:
        """All rows in memory, once every shard has been compared with its checksum.

        Raises:
            DatastoreError: a file is damaged.
        """
        for shard in range(len(self.starts) - 1):
            self._verify(shard)
        return self[:]

    def shard(self, number: int) -> np.ndarray:
        """Rows of a shard that has some, memory mapped; of the first shards asked for the mapping is kept."""
        mapped = self._maps.get(number)
        if mapped is None:
            mapped = self._open(number)
            if len(self._maps) < _KEPT_MAPS:
                self._maps[number] = mapped
        return mapped

    def _consecutive(self, start: int, stop: int) -> np.ndarray:
        parts = []
        shard = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self.starts[shard]), int(self.starts[shard + 1])
            if end > start:
                parts.append(self.shard(shard)[start - base : min(stop, end) - base])
                start = min(stop, end)
            shard += 1
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)

    def _chosen(self, ids: np.ndarray) -> np.ndarray:
        rows = ids.reshape(-1)
        result: np.ndarray = np.empty((len(rows), *self.shape[1:]), self.dtype)
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(shards):
            chosen = np.flatnonzero(shards == shard)
            # Increasing rows: one pass over the file instead of jumps.
            chosen = chosen[np.argsort(rows[chosen], kind="stable")]
            result[chosen] = self.shard(int(shard))[rows[chosen] - self.starts[shard]]
        return result.reshape(*ids.shape, *self.shape[1:])
