"""One array of a datastore, in as many files as there are shards."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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
        """Rows of a shard that has some, memory mapped when it is first asked for."""
        if number not in self._maps:
            self._maps[number] = self._open(number)
        return self._maps[number]

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
        # Increasing rows: one pass over the files instead of jumps.
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        bounds = np.searchsorted(ordered, self.starts)
        for shard in np.flatnonzero(np.diff(bounds)):
            part = slice(bounds[shard], bounds[shard + 1])
            # As a plain array, of which numpy takes rows without looking after the mapping each time.
            stored = self.shard(int(shard)).view(np.ndarray)
            result[order[part]] = stored[ordered[part] - self.starts[shard]]
        return result.reshape(*ids.shape, *self.shape[1:])
