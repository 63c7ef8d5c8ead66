"""What finds the neighbours that complete settings ask for."""

import logging
from collections.abc import Sequence

from fairseq_knn.combiners import Combiner, TrainedCombiner
from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.index import number_of_gpus
from fairseq_knn.retrieval import Automaton, Retriever, open_automaton
from fairseq_knn.tasks.knn.config import KnnConfig
from fairseq_knn.tasks.processes import place_and_number

logger = logging.getLogger("fairseq_knn")

_MODELS = {TRANSLATION: "translation model", LANGUAGE_MODEL: "language model"}


def open_retriever(
    stores: Sequence[Datastore], config: KnnConfig, combiner: Combiner, *, training: bool = False
) -> Retriever:
    """What searches *stores* for a combiner, with complete settings.

    Args:
        stores: of one model.
        config: the settings.
        combiner: what the neighbours are for.
        training: whether the combiner is trained.

    Raises:
        ConfigurationError, DatastoreError, SearchIndexError: see :class:`~fairseq_knn.retrieval.Retriever`; several
            GPUs are asked for in each of several processes.
    """
    processes = place_and_number()[1]
    if processes > 1 and number_of_gpus(config.knn_gpus or 1) != 1:
        raise ConfigurationError(
            f"--knn-gpus {config.knn_gpus} lets one process search on several GPUs, but {processes} processes train "
            "together here, each with a GPU of its own: leave it out, or train with --distributed-world-size 1"
        )
    lacking = None
    if combiner.needs_key_log_probs:
        lacking = next((store for store in stores if store.log_probs is None), None)
    if lacking is not None and lacking.key != "decoder_output":
        raise ConfigurationError(
            f"a {combiner.kind} combiner needs the model's probability of every entry, which {lacking.path} does not "
            f"hold and which cannot be made of its keys, for they are {lacking.key}: build it again (with "
            "--knn-overwrite), or use a datastore of decoder_output"
        )
    retriever = Retriever(
        stores,
        k=number_of_neighbours(config, combiner, stores),
        with_keys=combiner.needs_keys or lacking is not None or (training and combiner.needs_keys_to_train),
        with_key_log_probs=combiner.needs_key_log_probs,
        backend=str(config.knn_backend),
        device=str(config.knn_device),
        gpus=str(config.knn_gpus),
        nprobe=config.knn_nprobe,
        load=str(config.knn_load),
        recompute=config.knn_recompute_distances,
    )
    for store in stores:
        logger.info(f"using {store.path}: {store.entries:,} entries of dimension {store.dimension}")
    return retriever


def open_pointers(config: KnnConfig, combiner: Combiner, retriever: Retriever) -> Automaton:
    """What follows pointers, with complete settings.

    Args:
        config: the settings.
        combiner: what the neighbours are for.
        retriever: of the datastores.

    Raises:
        ConfigurationError: the combiner was trained for a number of neighbours that were searched for.
        DatastoreError: a datastore has no positions or no such clusters.
    """
    if isinstance(combiner, TrainedCombiner):
        raise ConfigurationError(
            f"--knn-retomaton finds another number of neighbours at every step, but the {combiner.kind} combiner was "
            "trained with as many as were searched for: leave out one of them"
        )
    return open_automaton(
        retriever,
        clusters=config.knn_clusters,
        min_knns=int(config.knn_min_knns or 1),
        max_knns=config.knn_max_knns,
        reference=config.knn_reference_counting,
    )


def check_kind_of(store: Datastore, config: KnnConfig) -> None:
    """
    Raises:
        DatastoreError: a translation model built the datastore, and a language model is to use it, or the other way.
    """
    kind = TRANSLATION if store.plan is None else store.plan.kind
    if kind != config.kind:
        raise DatastoreError(
            f"{store.path} was built by a {_MODELS[kind]}, but this task runs a {_MODELS[config.kind]}: use a "
            "datastore that was built with this task, or the task it was built with"
        )


def number_of_neighbours(config: KnnConfig, combiner: Combiner, stores: Sequence[Datastore]) -> int:
    """How many to retrieve: as many as the combiner can take alone, as given, as it was trained with, or the usual
    number, of which there may be fewer entries."""
    asked = combiner.max_k or config.knn_k or config.knn_max_k or combiner.usual_k
    return int(asked or min(config.usual_k, sum(store.entries for store in stores)))
