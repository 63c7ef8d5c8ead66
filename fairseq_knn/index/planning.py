"""What is to be built."""

import faiss
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.index.factory import choose_factory, choose_on_disk_factory, training_size
from fairseq_knn.index.faiss_files import explain_faiss_errors
from fairseq_knn.index.on_disk import require_lists_for_disk
from fairseq_knn.index.record import IndexSettings


def plan_index(
    datastore: Datastore,
    spec: str,
    device: torch.device,
    *,
    on_disk: bool = False,
    train_size: int | None = None,
    seed: int = 1,
) -> tuple[IndexSettings, faiss.Index]:
    """Settle what an index is built from.

    Args:
        datastore: whose keys are indexed.
        spec: ``auto``, ``flat``, or a faiss factory string.
        device: where it will be searched.
        on_disk: whether its lists stay on disk.
        train_size: number of keys to train with; ``None`` chooses it from the number of lists.
        seed: of the sample of keys to train with.

    Returns:
        the settings, and the index without anything in it.

    Raises:
        SearchIndexError: faiss does not know *spec*, or cannot keep such lists on disk.
        ConfigurationError: lists on disk are to be searched on a GPU.
    """
    if on_disk and device.type != "cpu":
        raise ConfigurationError(
            "--on-disk keeps the lists of the index on disk, where a CPU searches them, but --knn-device asks for a "
            "GPU: leave out one of them"
        )
    factory = _factory(datastore, spec, device, on_disk)
    empty = _create(datastore, factory)
    if on_disk:
        require_lists_for_disk(empty, factory)
    settings = IndexSettings(
        factory=factory,
        entries=datastore.entries,
        dimension=datastore.dimension,
        datastore=datastore.digest,
        seed=seed,
        train_size=_train_size(datastore, empty, train_size),
        on_disk=on_disk,
    )
    return settings, empty


def _factory(datastore: Datastore, spec: str, device: torch.device, on_disk: bool) -> str:
    if spec != "auto":
        return "Flat" if spec == "flat" else spec
    if on_disk:
        return choose_on_disk_factory(datastore.entries, datastore.dimension)
    return choose_factory(datastore.entries, datastore.dimension, device)


def _create(datastore: Datastore, factory: str) -> faiss.Index:
    remedy = "pass --knn-index auto, flat, or a faiss factory string such as IVF1024,SQ8"
    with explain_faiss_errors(f"make an index {factory!r} for keys of dimension {datastore.dimension}", remedy):
        return faiss.index_factory(datastore.dimension, factory)


def _train_size(datastore: Datastore, empty: faiss.Index, wanted: int | None) -> int:
    if empty.is_trained:
        return 0
    if wanted is None:
        lists = faiss.try_extract_index_ivf(empty)
        return training_size(datastore.entries, 0 if lists is None else lists.nlist)
    return min(wanted, datastore.entries)
