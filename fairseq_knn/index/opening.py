"""Choosing who searches a datastore."""

from collections.abc import Sequence

import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.index.backend import SearchBackend
from fairseq_knn.index.devices import resolve_devices
from fairseq_knn.index.factory import EXACT_SCAN
from fairseq_knn.index.sharded_backend import ShardedBackend
from fairseq_knn.index.stored_keys import fits
from fairseq_knn.index.torch_backend import TorchBackend

BACKENDS = ("auto", "faiss", "torch")
LOADS = ("mmap", "ram")


def open_backend(
    datastore: Datastore,
    *,
    backend: str = "auto",
    device: str = "auto",
    gpus: int | str = 1,
    nprobe: int | None = None,
    load: str = "mmap",
) -> SearchBackend:
    """Make a datastore searchable.

    Args:
        datastore: whose keys are searched.
        backend: ``torch`` (exact, needs no index), ``faiss`` (the datastore's index), or ``auto``: torch
            if the keys fit into 70 % of the GPU's free memory (of every GPU's, in equal parts), or on a CPU if they are
            so few that an index would not be faster; else faiss. If another toolkit left its index there, or the keys
            were dropped: faiss.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        gpus: how many GPUs hold keys or index together, the model's and others, or ``all`` that torch sees.
        nprobe: number of lists an inverted-file index looks into; ``None`` for what it was measured with. Other
            backends ignore it.
        load: ``mmap`` leaves index and keys on disk, memory mapped, where the search runs on the CPU (processes of one
            machine share what they read); ``ram`` reads them into memory first.

    Raises:
        UserError: a GPU is asked for and there is none.
        ConfigurationError: more GPUs are asked for than there are.
        SearchIndexError: the index is missing, damaged, or older than the datastore.
        DatastoreError: a file of keys is damaged.
        ValueError: *backend* or *load* is none of these.
    """
    for name, value, values in (("search backend", backend, BACKENDS), ("way to load", load, LOADS)):
        if value not in values:
            raise ValueError(f"unknown {name} {value!r}, expected one of {', '.join(values)}")
    devices = resolve_devices(device, gpus)
    if backend == "torch" or (backend == "auto" and _exact_is_best(datastore, devices)):
        if len(devices) > 1:
            return ShardedBackend(datastore, devices)
        return TorchBackend(datastore, devices[0], resident=load == "ram")
    # faiss brings a second OpenMP runtime: it is loaded only where it is used.
    from fairseq_knn.index.faiss_backend import FaissBackend

    return FaissBackend(datastore, devices[0], nprobe, mapped=load == "mmap", gpus=devices)


def exact_backend(datastore: Datastore, device: torch.device) -> SearchBackend:
    """Exact search on *device*, or on the CPU if the GPU's free memory is too small for the keys."""
    return TorchBackend(datastore, device if fits(datastore, [device]) else torch.device("cpu"))


def _exact_is_best(datastore: Datastore, devices: Sequence[torch.device]) -> bool:
    if datastore.foreign_index is not None or not datastore.has_keys:
        return False
    if devices[0].type == "cpu":
        return datastore.entries * datastore.dimension <= EXACT_SCAN
    return fits(datastore, devices)
