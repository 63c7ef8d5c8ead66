"""One run with datastores: which model uses which, checked before the first sentence is translated."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from fairseq_knn.combiners import Combiner, TrainedCombiner
from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore
from fairseq_knn.errors import CombinerError, ConfigurationError, DatastoreError
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.knn_decoder import augment, knn_decoder
from fairseq_knn.retrieval import Retriever
from fairseq_knn.storage.digest import short, vocabulary_digest
from fairseq_knn.tasks.knn.combiner import check_kind, make_combiner
from fairseq_knn.tasks.knn.config import KnnConfig, complete
from fairseq_knn.tasks.knn.retrieval import check_kind_of, open_pointers, open_retriever

logger = logging.getLogger("fairseq_knn")

_STOCK_TASKS = {TRANSLATION: "translation", LANGUAGE_MODEL: "language_modeling"}


@dataclass(frozen=True)
class _Member:
    """A model of the run with its settings, which its checkpoint may have brought, and its combiner."""

    model: nn.Module
    config: KnnConfig
    combiner: Combiner


class KnnSession:
    """Gives the models of a run their datastores.

    Args:
        config: the ``--knn-*`` settings as given.
        datastores: opened ones; those that ``--knn-datastore-path`` names if there are none.
    """

    def __init__(self, config: KnnConfig, datastores: Sequence[Datastore] = ()) -> None:
        self.given = config
        self.config = complete(config)
        self.building = config.knn_mode == "build_datastore"
        self._datastores = list(datastores)
        self._opened: dict[str, Datastore] = {}
        self._members: list[_Member] = []
        self._augmentations: dict[int, Augmentation | None] = {}

    @property
    def models(self) -> list[nn.Module]:
        """Models loaded from checkpoints, in the order of ``--path``."""
        return [member.model for member in self._members]

    @property
    def serving(self) -> bool:
        """Whether models were loaded from checkpoints to be used (and not built to be trained)."""
        return bool(self._members)

    @property
    def path(self) -> str:
        """``--knn-datastore-path``, which every mode needs.

        Raises:
            ConfigurationError: it was not given.
        """
        return _path(self.config)

    @property
    def key(self) -> str:
        """The hidden state that is key and query: the datastores' own, or the one asked for.

        Raises:
            DatastoreError: they are not the same.
        """
        if self.building:
            return self.config.knn_key or self.config.usual_key
        kinds = {store.key: store for store in self._datastores}
        if self.given.knn_key:
            kinds.setdefault(self.given.knn_key, self._datastores[0])
        if len(kinds) > 1:
            told = ", ".join(f"{store.path}: {store.key}" for store in self._datastores)
            asked = f"; --knn-key asks for {self.given.knn_key}" if self.given.knn_key else ""
            raise DatastoreError(
                f"keys of different kinds cannot be mixed ({told}{asked}): leave out --knn-key, and combine only "
                "datastores of one kind"
            )
        return next(iter(kinds))

    @property
    def datastores(self) -> Sequence[Datastore]:
        """All that are opened."""
        return self._datastores

    def open_datastores(self, config: KnnConfig) -> None:
        """Open the datastores that complete settings name, unless they are given or open already.

        Raises:
            ConfigurationError: none is named.
            DatastoreError: see :meth:`~fairseq_knn.datastore.Datastore.load`.
        """
        if self._datastores and not self._opened:
            return
        named = _path(config)
        if os.path.exists(named) and ":" in named:
            raise ConfigurationError(
                f"--knn-datastore-path names {named}, but ':' separates several datastores: rename the directory"
            )
        for path in named.split(":"):
            if path not in self._opened:
                store = Datastore.load(path)
                check_kind_of(store, config)
                self._opened[path] = store
                self._datastores.append(store)

    def adopt(
        self, model: nn.Module, combiner: TrainedCombiner | None = None, recorded: Mapping[str, Any] | None = None
    ) -> None:
        """Let a model that is about to be loaded from a checkpoint work with datastores.

        Args:
            model: before or after its parameters are loaded.
            combiner: of the checkpoint itself; one that is named otherwise takes its place.
            recorded: settings of the checkpoint, for what is not given.

        Raises:
            ConfigurationError, DatastoreError, CombinerError: the settings or what they name do not suit the model.
        """
        config = complete(self.given, recorded)
        used: Combiner
        if combiner is None or config.knn_combiner_path is not None:
            used = make_combiner(config, self.given.knn_combiner)
        else:
            check_kind(combiner, self.given.knn_combiner, "the checkpoint")
            used = combiner
        if not self.building:
            self.open_datastores(config)
        augment(model, self.key, lambda: self._augmentation(model))
        self._members.append(_Member(model, config, used))

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
        self.check_vocabulary(vocabulary)
        for member in self._members:
            self._check_combiner(member, len(vocabulary))
        assignment = self.assign(self.models)
        for member, stores in zip(self._members, assignment, strict=True):
            self._augmentations[id(member.model)] = self._open(stores, member)

    def _augmentation(self, model: nn.Module) -> Augmentation | None:
        if self.building:
            return None
        if not self._augmentations:
            # Programs without a generator (fairseq-validate) come here first.
            self.prepare(vocabulary_of(knn_decoder(model).dictionary))
        return self._augmentations[id(model)]

    def _open(self, stores: Sequence[Datastore], member: _Member) -> Augmentation | None:
        config, combiner = member.config, member.combiner
        if combiner.ignores_neighbours:
            logger.info("the neighbours have weight 0: translating with the model alone")
            return None
        retriever = open_retriever(stores, config, combiner)
        automaton = open_pointers(config, combiner, retriever) if config.knn_retomaton else None
        project = knn_decoder(member.model).knn_project
        return Augmentation(combiner, retriever, config.knn_skip_threshold, project, automaton)

    def assign(self, models: Sequence[nn.Module]) -> list[list[Datastore]]:
        """The datastores of each model: those it built itself.

        Raises:
            DatastoreError: a datastore was built by none of them, or a model has none.
        """
        prints = [str(knn_decoder(model).knn_fingerprint) for model in models]
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
                loaded = ", ".join(f"{type(m).__name__} {short(p)}" for m, p in zip(models, prints, strict=True))
                raise DatastoreError(
                    f"{store.path} was built by another model ({plan.model_name} {short(plan.model)}) than the one "
                    f"loaded ({loaded}): use that model, build a datastore with this one, or insist with "
                    "--knn-allow-mismatch"
                )
        assignment = [[s for s in self._datastores if s.plan is None or s.plan.model == p] for p in prints]
        for model, fingerprint, stores in zip(models, prints, assignment, strict=True):
            if not stores:
                raise DatastoreError(
                    f"no datastore among {', '.join(str(store.path) for store in self._datastores)} was built by the "
                    f"ensemble's {type(model).__name__} "
                    f"{short(fingerprint)}: build one with each model of the ensemble and separate them by ':'"
                )
        return assignment

    def check_vocabulary(self, vocabulary: Sequence[str]) -> None:
        """
        Raises:
            DatastoreError: a datastore was built with another target dictionary.
        """
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

    def _check_combiner(self, member: _Member, vocabulary: int) -> None:
        """Whether a trained combiner has the sizes of the datastores.

        Raises:
            CombinerError: it has others.
        """
        combiner, config = member.combiner, member.config
        if not isinstance(combiner, TrainedCombiner):
            return
        place = f"in {config.knn_combiner_path}" if config.knn_combiner_path else "of the checkpoint"
        if combiner.probability_dim != vocabulary:
            raise CombinerError(
                f"the combiner {place} was trained with {combiner.probability_dim:,} target symbols, the data has "
                f"{vocabulary:,}: use the one that was trained for this model"
            )
        for store in self._datastores:
            if combiner.query_dim not in (None, store.dimension):
                raise CombinerError(
                    f"the combiner {place} was trained with keys of dimension {combiner.query_dim}, those of "
                    f"{store.path} have dimension {store.dimension}: use the one that was trained with this datastore"
                )
        asked = self.given.knn_max_k or self.given.knn_k
        if combiner.max_k is not None and asked not in (None, combiner.max_k):
            raise CombinerError(
                f"the combiner {place} was trained with {combiner.max_k} neighbours, but {asked} are asked for: leave "
                "--knn-k and --knn-max-k out, or train one with that many"
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
        means = [a.figures for a in augmentations if a.figures]
        for name in dict.fromkeys(name for each in means for name in each):
            known = [each[name] for each in means if name in each]
            figures[f"knn_{name}"] = round(sum(known) / len(known), 4)
        automata = [a.automaton.statistics for a in augmentations if a.automaton is not None]
        if automata:
            steps = sum(each.steps for each in automata)
            saved = 1 - sum(each.searched for each in automata) / steps if steps else 0.0
            figures["knn_foss"] = round(saved, 4)
        if any(member.config.knn_skip_threshold is not None for member in self._members):
            positions = sum(a.positions for a in augmentations)
            figures["knn_skipped"] = round(sum(a.skipped for a in augmentations) / positions, 4) if positions else 0.0
        return figures


def vocabulary_of(dictionary: Any) -> list[str]:
    """Symbols in the order of their ids; a dictionary may be a part of another one."""
    return [dictionary[number] for number in range(len(dictionary))]


def _path(config: KnnConfig) -> str:
    if not config.knn_datastore_path:
        raise ConfigurationError(
            "--knn-datastore-path is missing: name the directory of the datastore (or use --task "
            f"{_STOCK_TASKS[config.kind]} for the model without one)"
        )
    return str(config.knn_datastore_path)
