"""Datastores for one loaded model: which neighbours it gets, checked before its first forward."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_knn.combiners import Combiner, TrainedCombiner, VanillaCombiner
from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore
from fairseq_knn.datastore.model_facts import ModelFacts
from fairseq_knn.errors import CombinerError, ConfigurationError
from fairseq_knn.huggingface.fitting import check, facts, key_of
from fairseq_knn.huggingface.knn_model import KnnModel
from fairseq_knn.huggingface.layers import output_layer
from fairseq_knn.huggingface.sources import Pointing, Searching
from fairseq_knn.retrieval import Automaton, Retriever, open_automaton
from fairseq_knn.wrapper_settings import WrapperSettings

logger = logging.getLogger("fairseq_knn")


@dataclass(frozen=True)
class Defaults:
    """What is used where the user says nothing: the papers' settings."""

    k: int
    lmbda: float
    temperature: float


DEFAULTS = {TRANSLATION: Defaults(8, 0.7, 10.0), LANGUAGE_MODEL: Defaults(1024, 0.25, 1.0)}


class HuggingFaceKnn:
    """Lets a model of transformers consult datastores.

    Args:
        model: it.
        datastores: searched as one.
        settings: of retrieval.

    Raises:
        ConfigurationError: a setting does not suit the model or the datastores.
        DatastoreError: a datastore was built by another model, or has nothing that points to the next token.
        CombinerError: a combiner has another size.
        SearchIndexError: an index is needed and missing, stale or damaged.
    """

    def __init__(self, model: Any, datastores: Sequence[Datastore], settings: WrapperSettings) -> None:
        model_facts = facts(model)
        check(datastores, model_facts, allow_mismatch=settings.allow_mismatch)
        key = key_of(datastores, settings.key)
        self._combiner = _combiner(settings, model_facts)
        self._retriever: Retriever | None = None
        self._automaton: Automaton | None = None
        self._knn_model: KnnModel | None = None
        if self._combiner.ignores_neighbours:
            logger.info("the neighbours have weight 0: the model alone is used")
            return
        self._retriever = _retriever(datastores, settings, self._combiner, model_facts)
        source: Searching | Pointing = Searching(self._retriever)
        if settings.retomaton and not settings.no_pointer:
            weight: Any = output_layer(model).weight  # of a model on several devices, where the queries are
            self._automaton = open_automaton(
                self._retriever,
                clusters=settings.clusters,
                min_knns=settings.min_knns,
                max_knns=settings.max_knns,
                reference=settings.reference_counting,
                device=weight.device,
            )
            source = Pointing(self._automaton)
        self._knn_model = KnnModel(model, key, self._combiner, source, settings.skip_threshold)
        self._counts_skipped = settings.skip_threshold is not None

    def break_out(self) -> None:
        """Leave the model as it was."""
        if self._knn_model is not None:
            self._knn_model.remove()

    @property
    def retrievers(self) -> list[Retriever]:
        """What searches; nothing where the neighbours have weight 0."""
        return [] if self._retriever is None else [self._retriever]

    def statistics(self) -> dict[str, Any]:
        """What retrieval has cost so far."""
        if self._retriever is None or self._knn_model is None:
            return {}
        searched, model = self._retriever.statistics, self._knn_model
        figures: dict[str, Any] = {
            "knn_search_ms": round(searched.milliseconds_per_search, 2),
            "knn_searches": searched.searches,
            "knn_queries": searched.queries,
            "knn_k": self._retriever.k,
        }
        if isinstance(self._combiner, VanillaCombiner):
            figures["knn_lambda"] = self._combiner.weight
        figures |= {f"knn_{name}": round(mean, 4) for name, mean in model.figures.items()}
        if self._automaton is not None:
            steps = self._automaton.statistics
            figures |= {"knn_steps": steps.steps, "knn_searched_steps": steps.searched}
            figures["knn_foss"] = round(steps.saved, 4)
        if self._counts_skipped:
            figures["knn_skipped"] = round(model.skipped / model.positions, 4) if model.positions else 0.0
        return figures


def _combiner(settings: WrapperSettings, model: ModelFacts) -> Combiner:
    defaults = DEFAULTS[model.kind]
    if settings.combiner_path is None:
        return VanillaCombiner(
            defaults.lmbda if settings.lmbda is None else settings.lmbda,
            defaults.temperature if settings.temperature is None else settings.temperature,
        )
    combiner = load_combiner(settings.combiner_path)
    if combiner.probability_dim != model.vocabulary_size:
        raise CombinerError(
            f"the combiner in {settings.combiner_path} was trained with {combiner.probability_dim:,} symbols, "
            f"{model.name} predicts {model.vocabulary_size:,}: use one that was trained for this model"
        )
    if settings.retomaton:
        raise ConfigurationError(
            f"a {combiner.kind} combiner was trained with the nearest neighbours, and RetoMaton follows pointers "
            "instead: use one of the two"
        )
    combiner.eval()
    return combiner


def _retriever(
    datastores: Sequence[Datastore], settings: WrapperSettings, combiner: Combiner, model: ModelFacts
) -> Retriever:
    trained = combiner.max_k or (combiner.usual_k if settings.k is None else None)
    k = trained or settings.k or DEFAULTS[model.kind].k
    entries = sum(store.entries for store in datastores)
    if k > entries:
        logger.info(f"there are {entries:,} entries, fewer than k {k:,}: all are neighbours")
    if isinstance(combiner, TrainedCombiner) and k > entries:
        raise ConfigurationError(
            f"the combiner in {settings.combiner_path} takes {k} neighbours, but there are {entries:,} entries: use a "
            "larger datastore"
        )
    retriever = Retriever(
        datastores,
        k=min(k, entries),
        backend=settings.backend,
        device=settings.device,
        gpus=settings.gpus,
        nprobe=settings.nprobe,
        load=settings.load,
        recompute=settings.recompute_distances,
        with_keys=combiner.needs_keys,
        with_key_log_probs=combiner.needs_key_log_probs,
    )
    if combiner.needs_key_log_probs and not retriever.has_key_log_probs:
        raise ConfigurationError(
            f"a {combiner.kind} combiner needs the model's probability of every entry, which not all of "
            f"{', '.join(str(store.path) for store in datastores)} hold: build them with KNNSaver"
        )
    for store in datastores:
        logger.info(f"using {store.path}: {store.entries:,} entries of dimension {store.dimension}")
    return retriever
