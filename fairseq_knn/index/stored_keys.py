"""The keys of a datastore as blocks of tensors: all in memory, or read again for every search."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import UserError

_LOAD_BYTES = 64 << 20  # of one copy to a device
_GPU_SHARE = 0.7  # of the free memory of a GPU that keys may take


class StoredKeys(Protocol):
    """Keys (N, d) that are passed over block by block."""

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All keys in order, at most *rows* at a time, as (first entry, (n, d))."""

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        """Keys of the given entries, ids.shape + (d,), wherever they are kept."""


class ResidentKeys:
    """Keys in the memory of one device.

    Args:
        datastore: its keys are compared with their checksums as they are read.
        device: where they go.
        dtype: ``torch.float16`` as they are stored, or ``torch.float32``, which CPUs multiply faster.
        entries: whose keys, consecutive ones, which are numbered from 0 here; ``None`` for all.

    Raises:
        DatastoreError: a file of keys is damaged.
        UserError: they do not fit into the memory of a GPU.
    """

    def __init__(
        self, datastore: Datastore, device: torch.device, dtype: torch.dtype, entries: range | None = None
    ) -> None:
        entries = range(datastore.entries) if entries is None else entries
        try:
            self._keys = torch.empty((len(entries), datastore.dimension), dtype=dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the keys of {datastore.path} need {len(entries) * datastore.dimension * 2 / 1e9:,.1f} GB, the "
                f"GPU has {torch.cuda.mem_get_info(device)[0] / 1e9:,.1f} GB free: pass --knn-backend faiss, "
                "--knn-device cpu, --knn-gpus to spread them over more GPUs, or --knn-backend auto to decide between "
                "index and keys"
            ) from error
        for shard, (first, last) in enumerate(pairwise(accumulate(datastore.shard_entries, initial=0))):
            if first < entries.stop and last > entries.start:
                datastore.verify_keys(shard)
        for start, block in _blocks(datastore, entries, rows_of(_LOAD_BYTES, 2 * datastore.dimension)):
            self._keys[start : start + len(block)] = block.to(device)

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, len(self._keys), rows):
            yield start, self._keys[start : start + rows]

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        return self._keys[ids.to(self._keys.device)]


class StreamedKeys:
    """Keys that stay on disk: every pass reads them again, converted to float32 on the CPU.

    Args:
        datastore: whose.
        entries: see :class:`ResidentKeys`.
    """

    def __init__(self, datastore: Datastore, entries: range | None = None) -> None:
        self._datastore = datastore
        self._entries = range(datastore.entries) if entries is None else entries

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start, block in _blocks(self._datastore, self._entries, rows):
            yield start, block.float()

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._datastore.gather_keys(ids.cpu().numpy() + self._entries.start))


def open_keys(datastore: Datastore, device: torch.device, *, resident: bool) -> StoredKeys:
    """Keys by the numbers of their entries.

    Args:
        datastore: whose keys.
        device: where they are wanted: in a GPU's memory if they fit there.
        resident: read them into memory where they would stay on disk.

    Raises:
        DatastoreError: they were dropped, or a file is damaged.
    """
    if device.type != "cpu" and fits(datastore, [device]):
        return ResidentKeys(datastore, device, torch.float16)
    if resident:
        return ResidentKeys(datastore, torch.device("cpu"), torch.float16)
    return StreamedKeys(datastore)


def fits(datastore: Datastore, devices: Sequence[torch.device]) -> bool:
    """Whether the keys of a datastore, in equal parts, fit into the free memory of devices; into a CPU's always."""
    part = -(-datastore.entries // len(devices))
    for device in devices:
        # float16 keys and float32 norms.
        needed = part * (2 * datastore.dimension + 4)
        if device.type != "cpu" and needed > _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return False
    return True


def rows_of(memory: int, row_bytes: int) -> int:
    """How many rows of *row_bytes* fit into *memory* bytes; at least one."""
    return max(1, memory // row_bytes)


def _blocks(datastore: Datastore, entries: range, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The keys of consecutive entries as they are stored, as (place among these, (n, d))."""
    for start in entries[::rows]:
        yield start - entries.start, torch.from_numpy(datastore.keys(start, min(start + rows, entries.stop)))
