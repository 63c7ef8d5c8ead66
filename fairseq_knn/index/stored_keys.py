"""The keys of a datastore as blocks of tensors: all in memory, or read again for every search."""

from collections.abc import Iterator
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
    """All keys in the memory of one device.

    Args:
        datastore: its keys are compared with their checksums as they are read.
        device: where they go.
        dtype: ``torch.float16`` as they are stored, or ``torch.float32``, which CPUs multiply faster.

    Raises:
        DatastoreError: a file of keys is damaged.
        UserError: they do not fit into the memory of a GPU.
    """

    def __init__(self, datastore: Datastore, device: torch.device, dtype: torch.dtype) -> None:
        try:
            self._keys = torch.empty((datastore.entries, datastore.dimension), dtype=dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the keys of {datastore.path} need {datastore.entries * datastore.dimension * 2 / 1e9:,.1f} GB, the "
                f"GPU has {torch.cuda.mem_get_info(device)[0] / 1e9:,.1f} GB free: pass --knn-backend faiss, "
                "--knn-device cpu, or --knn-backend auto to decide between them"
            ) from error
        for shard in range(len(datastore.shard_entries)):
            datastore.verify_keys(shard)
        for start, block in datastore.key_blocks(rows_of(_LOAD_BYTES, 2 * datastore.dimension)):
            self._keys[start : start + len(block)] = torch.from_numpy(block).to(device)

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, len(self._keys), rows):
            yield start, self._keys[start : start + rows]

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        return self._keys[ids.to(self._keys.device)]


class StreamedKeys:
    """Keys that stay on disk: every pass reads them again, converted to float32 on the CPU."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    def blocks(self, rows: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start, block in self._datastore.key_blocks(rows):
            yield start, torch.from_numpy(block).float()

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._datastore.gather_keys(ids.cpu().numpy()))


def open_keys(datastore: Datastore, device: torch.device, *, resident: bool) -> StoredKeys:
    """Keys by the numbers of their entries.

    Args:
        datastore: whose keys.
        device: where they are wanted: in a GPU's memory if they fit there.
        resident: read them into memory where they would stay on disk.

    Raises:
        DatastoreError: they were dropped, or a file is damaged.
    """
    if device.type != "cpu" and fits(datastore, device):
        return ResidentKeys(datastore, device, torch.float16)
    if resident:
        return ResidentKeys(datastore, torch.device("cpu"), torch.float16)
    return StreamedKeys(datastore)


def fits(datastore: Datastore, device: torch.device) -> bool:
    """Whether the keys of a datastore fit into the free memory of a device; into a CPU's they always do."""
    if device.type == "cpu":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    # float16 keys and float32 norms.
    return datastore.entries * (2 * datastore.dimension + 4) <= _GPU_SHARE * free


def rows_of(memory: int, row_bytes: int) -> int:
    """How many rows of *row_bytes* fit into *memory* bytes; at least one."""
    return max(1, memory // row_bytes)
