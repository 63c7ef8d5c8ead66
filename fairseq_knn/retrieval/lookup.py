"""What several datastores hold for entries whose ids count through them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.datastore import Datastore


class Lookup:
    """One array of several datastores as if they were one.

    Args:
        entries: number of entries of each datastore.
        gathers: of each, what gives the rows of its own entries: from int64 (...) to (..., *row_shape), on any device.
        dtype: of the result.
        row_shape: shape of a row.
    """

    def __init__(
        self,
        entries: Sequence[int],
        gathers: Sequence[Callable[[Tensor], Tensor]],
        dtype: torch.dtype,
        row_shape: tuple[int, ...] = (),
    ) -> None:
        self._entries, self._gathers = entries, gathers
        self._dtype, self._row_shape = dtype, row_shape

    def __call__(self, ids: Tensor) -> Tensor:
        """Rows of the given entries, int64 (...), as (..., *row_shape) on their device; zeros where the id is -1."""
        result = torch.zeros((*ids.shape, *self._row_shape), dtype=self._dtype, device=ids.device)
        rest = ids
        for entries, gather in zip(self._entries, self._gathers, strict=True):
            # Every datastore is asked for all: choosing its own would make a GPU wait for their number.
            rows = gather(rest.clamp(0, entries - 1)).to(result)
            own = (rest >= 0) & (rest < entries)
            result = torch.where(own.view(*ids.shape, *(1 for _ in self._row_shape)), rows, result)
            rest = rest - entries
        return result


def gather_resident(array: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows of a tensor, on its device."""
    return lambda ids: array[ids.to(array.device)]


def open_log_probs(datastore: Datastore, device: torch.device, *, resident: bool) -> Callable[[Tensor], Tensor]:
    """The stored log-probabilities of a datastore that has them, by the numbers of their entries.

    Args:
        datastore: whose.
        device: they are kept in the memory of a GPU.
        resident: keep them in memory, too, where they would stay on disk.

    Raises:
        DatastoreError: a file is damaged (found where all are read).
    """
    stored = datastore.log_probs
    assert stored is not None
    if resident or device.type != "cpu":
        return gather_resident(torch.from_numpy(stored.verified()).to(device))

    def gather(ids: Tensor) -> Tensor:
        unique, inverse = np.unique(ids.cpu().numpy(), return_inverse=True)
        return torch.from_numpy(stored[unique][inverse.reshape(ids.shape)])

    return gather
