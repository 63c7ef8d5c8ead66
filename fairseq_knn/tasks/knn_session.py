"""One run with datastores: which model uses which, checked before the first sentence is translated."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from torch import nn

from fairseq_knn.combiners import TrainedCombiner
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import CombinerError, ConfigurationError, DatastoreError
from fairseq_knn.models.knn_decoder import Augmentation, augment, knn_decoder
from fairseq_knn.retrieval import Retriever
from fairseq_knn.storage.digest import short, vocabulary_digest
from fairseq_knn.tasks.knn_combiner import make_combiner
from fairseq_knn.tasks.knn_config import KnnConfig

logger = logging.getLogger("fairseq_knn")


class KnnSession:
    """Gives the models of a run their datastores.

    Args:
        config: the ``--knn-*`` settings.
        datastores: opened ones; those that ``--knn-datastore-path`` names if there are none.

    Raises:
        ConfigurationError: a setting of the combiner is out of its range.
    """

    def __init__(self, config: KnnConfig, datastores: Sequence[Datastore] = ()) -> None:
        self.config = config
        self.building = config.knn_mode == "build_datastore"
        self._combiner = make_combiner(config)
        self._datastores = list(datastores)
        self._models: list[nn.Module] = []
        self._augmentations: dict[int, Augmentation | None] = {}

    @property
    def models(self) -> list[nn.Module]:
        """Models loaded from checkpoints, in the order of ``--path``."""
        return self._models

    @property
    def serving(self) -> bool:
        """Whether models were loaded from checkpoints to be used (and not built to be trained)."""
        return bool(self._models)

    @property
    def path(self) -> str:
        """``--knn-datastore-path``, which every mode needs.

        Raises:
            ConfigurationError: it was not given.
        """
        if not self.config.knn_datastore_path:
            raise ConfigurationError(
                "--knn-datastore-path is missing: name the directory of the datastore (or use --task translation for "
                "the model without one)"
            )
        return self.config.knn_datastore_path

    @property
    def key(self) -> str:
        """The hidden state that is key and query: the datastore's own, or the one asked for."""
        if self.building:
            return self.config.knn_key or "decoder_output"
        kinds = {store.key: store for store in self._datastores}
        if self.config.knn_key:
            kinds.setdefault(self.config.knn_key, self._datastores[0])
        if len(kinds) > 1:
            told = ", ".join(f"{store.path}: {store.key}" for store in self._datastores)
            asked = f"; --knn-key asks for {self.config.knn_key}" if self.config.knn_key else ""
            raise DatastoreError(
                f"keys of different kinds cannot be mixed ({told}{asked}): leave out --knn-key, and combine only "
                "datastores of one kind"
            )
        return next(iter(kinds))

    def adopt(self, model: nn.Module) -> None:
        """Let a model that is about to be loaded from a checkpoint work with datastores."""
        if not self.building and not self._datastores:
            if os.path.exists(self.path) and ":" in self.path:
                raise ConfigurationError(
                    f"--knn-datastore-path names {self.path}, but ':' separates several datastores: rename "
                    "the directory"
                )
            self._datastores = [Datastore.load(path) for path in self.path.split(":")]
        augment(model, self.key, lambda: self._augmentation(model))
        self._models.append(model)

    def prepare(self, vocabulary: Sequence[str]) -> None:
        """Check models against datastores and open the indexes; called when the models are loaded.

        Args:
            vocabulary: symbols of the target dictionary in the order of their ids.

        Raises:
            DatastoreError: a datastore was built by another model or with another dictionary.
            SearchIndexError, ConfigurationError: see :class:`~fairseq_knn.retrieval.Retriever`.
        """
        if self.building or self._augmentations:
            return
        self._check_vocabulary(vocabulary)
        self._check_combiner(len(vocabulary))
        assignment = self._assign()
        for model, stores in zip(self._models, assignment, strict=True):
            self._augmentations[id(model)] = self._open(stores, model)

    def _augmentation(self, model: nn.Module) -> Augmentation | None:
        if self.building:
            return None
        if not self._augmentations:
            # Programs without a generator (fairseq-validate) come here first.
            self.prepare(knn_decoder(model).dictionary.symbols)
        return self._augmentations[id(model)]

    def _open(self, stores: list[Datastore], model: nn.Module) -> Augmentation | None:
        config = self.config
        if self._combiner.ignores_neighbours:
            logger.info("the neighbours have weight 0: translating with the model alone")
            return None
        combiner = self._combiner
        lacking = None
        if combiner.needs_key_log_probs:
            lacking = next((store for store in stores if store.log_probs is None), None)
        if lacking is not None and self.key != "decoder_output":
            raise ConfigurationError(
                f"a {combiner.kind} combiner needs the model's probability of every entry, which {lacking.path} does "
                f"not hold and which cannot be made of its keys, for they are {self.key}: build it again (with "
                "--knn-overwrite), or use a datastore of decoder_output"
            )
        retriever = Retriever(
            stores,
            k=combiner.max_k or config.knn_k,
            with_keys=combiner.needs_keys or lacking is not None,
            with_key_log_probs=combiner.needs_key_log_probs,
            backend=config.knn_backend,
            device=config.knn_device,
            nprobe=config.knn_nprobe,
            load=config.knn_load,
        )
        for store in stores:
            logger.info(f"using {store.path}: {store.entries:,} entries of dimension {store.dimension}")
        return Augmentation(combiner, retriever, config.knn_skip_threshold, knn_decoder(model).knn_project)

    def _assign(self) -> list[list[Datastore]]:
        """The datastores of each model: those it built itself."""
        prints = [str(knn_decoder(model).knn_fingerprint) for model in self._models]
        if len(prints) == 1 and self.config.knn_allow_mismatch:
            return [self._datastores]
        for store in self._datastores:
            plan = store.plan
            if plan is None:
                if len(prints) > 1:
                    raise DatastoreError(
                        f"{store.path} does not say which model of the ensemble built it: bind it to its model with "
                        f"`fairseq-knn convert {store.path} NEW DATA --path MODEL.pt`"
                    )
                logger.warning(
                    f"{store.path} does not say which model and dictionary built it, so that they are the ones loaded "
                    f"is not checked; `fairseq-knn convert` binds it to them"
                )
            elif plan.model not in prints:
                loaded = ", ".join(f"{type(m).__name__} {short(p)}" for m, p in zip(self._models, prints, strict=True))
                raise DatastoreError(
                    f"{store.path} was built by another model ({plan.model_name} {short(plan.model)}) than the one "
                    f"loaded ({loaded}): use that model, build a datastore with this one, or insist with "
                    "--knn-allow-mismatch"
                )
        assignment = [[s for s in self._datastores if s.plan is None or s.plan.model == p] for p in prints]
        for model, fingerprint, stores in zip(self._models, prints, assignment, strict=True):
            if not stores:
                raise DatastoreError(
                    f"no datastore among {', '.join(str(store.path) for store in self._datastores)} was built by the "
                    f"ensemble's {type(model).__name__} "
                    f"{short(fingerprint)}: build one with each model of the ensemble and separate them by ':'"
                )
        return assignment

    def _check_vocabulary(self, vocabulary: Sequence[str]) -> None:
        for store in self._datastores:
            plan = store.plan
            if plan is None:
                if (largest := int(store.values.max())) >= len(vocabulary):
                    raise DatastoreError(
                        f"{store.path} holds token {largest}, but the target dictionary of the data has "
                        f"{len(vocabulary):,} symbols: use the data directory it was built from"
                    )
            elif plan.vocabulary != vocabulary_digest(vocabulary):
                # Token ids of another size cannot even be looked up; the user cannot insist on those.
                if self.config.knn_allow_mismatch and plan.vocabulary_size <= len(vocabulary):
                    continue
                raise DatastoreError(
                    f"{store.path} was built with another target dictionary ({plan.vocabulary_size:,} symbols, "
                    f"{short(plan.vocabulary)}) than the data's ({len(vocabulary):,} symbols, "
                    f"{short(vocabulary_digest(vocabulary))}): use the data directory it was built from, or build it "
                    "again with this dictionary"
                )

    @property
    def retrievers(self) -> list[Retriever]:
        """What searches, one for each model that consults datastores."""
        return [a.retriever for a in self._augmentations.values() if a is not None]

    def _check_combiner(self, vocabulary: int) -> None:
        """Whether a trained combiner has the sizes of the datastores.

        Raises:
            CombinerError: it has others.
        """
        combiner = self._combiner
        if not isinstance(combiner, TrainedCombiner):
            return
        if combiner.probability_dim != vocabulary:
            raise CombinerError(
                f"the combiner in {self.config.knn_combiner_path} was trained with {combiner.probability_dim:,} target "
                f"symbols, the data has {vocabulary:,}: use the one that was trained for this model"
            )
        for store in self._datastores:
            if combiner.query_dim not in (None, store.dimension):
                raise CombinerError(
                    f"the combiner in {self.config.knn_combiner_path} was trained with keys of dimension "
                    f"{combiner.query_dim}, those of {store.path} have dimension {store.dimension}: use the one that "
                    "was trained with this datastore"
                )

    def statistics(self) -> dict[str, Any]:
        """What the searches of this run cost, for the closing line."""
        augmentations = [a for a in self._augmentations.values() if a is not None]
        if not augmentations:
            return {}
        opened = [retriever.statistics for retriever in self.retrievers]
        searches = sum(s.searches for s in opened)
        seconds = sum(s.seconds for s in opened)
        figures = {
            "knn_search_ms": round(1000 * seconds / searches, 2) if searches else 0.0,
            "knn_searches": searches,
            "knn_queries": sum(s.queries for s in opened),
            "knn_lambda": self.config.knn_lambda,
            "knn_k": self.retrievers[0].k,
        }
        if weights := [a.weights for a in augmentations if a.weights is not None]:
            figures["knn_lambda"] = round(sum(mean for mean, _ in weights) / len(weights), 4)
            figures["knn_lambda_high"] = round(sum(high for _, high in weights) / len(weights), 4)
        if self.config.knn_skip_threshold is not None:
            positions = sum(a.positions for a in augmentations)
            figures["knn_skipped"] = round(sum(a.skipped for a in augmentations) / positions, 4) if positions else 0.0
        return figures
