"""Training a combiner on top of a frozen model, under stock fairseq-train."""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_knn.combiners import TrainedCombiner
from fairseq_knn.combiners.measuring import means
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import CombinerError, ConfigurationError
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.base_model import BaseModel, architecture, read_base, same_model_class
from fairseq_knn.models.frozen_base import combiner_of, freeze
from fairseq_knn.models.knn_decoder import augment, knn_decoder
from fairseq_knn.models.training_step import TrainingStep
from fairseq_knn.storage.digest import short
from fairseq_knn.tasks.knn.cached_retrieval import CachedRetrieval
from fairseq_knn.tasks.knn.combiner import fresh_combiner
from fairseq_knn.tasks.knn.config import RECORDED
from fairseq_knn.tasks.knn.datastore_build import split_digest
from fairseq_knn.tasks.knn.patience import patience, restore_patience
from fairseq_knn.tasks.knn.retrieval import number_of_neighbours, open_retriever
from fairseq_knn.tasks.knn.session import KnnSession

logger = logging.getLogger("fairseq_knn")

SPLIT = "knn_split"  # in every batch: which split it is of
BEST = "combiner_best"  # directory beside the checkpoints
_SUMS = "knn_sum_"  # what figures are called on their way through fairseq's logging outputs
_SEARCHES, _SECONDS = "searches", "search_seconds"


class CombinerTraining:
    """What ``--knn-mode train`` adds to a stock task.

    Args:
        session: of the run.
        stock: settings of the task, with those of fairseq that training depends on.

    Raises:
        ConfigurationError: no base model is named, or a stock option does not go with a frozen base.

    Attributes:
        progress: what a run that goes on needs beside what stock checkpoints hold.
    """

    def __init__(self, session: KnnSession, stock: Any) -> None:
        self._session, self._config = session, session.config
        if getattr(stock, "store_ema", False):
            raise ConfigurationError(
                "--store-ema averages all parameters of a model, of which combiner training keeps the base frozen: "
                "leave it out"
            )
        if getattr(stock, "ddp_backend", None) == "fully_sharded":
            raise ConfigurationError(
                "--ddp-backend fully_sharded splits parameters among GPUs, and a combiner has too few to split: leave "
                "it out"
            )
        if getattr(stock, "find_unused_parameters", False):
            raise ConfigurationError(
                "--find-unused-parameters is for models that do not use all of their parameters in every batch, while "
                "a combiner does, and torch would break off: leave it out"
            )
        if self._config.knn_combiner_path is not None:
            raise ConfigurationError(
                "--knn-combiner-path names a combiner that is trained already, but --knn-mode train makes a new one: "
                "leave it out"
            )
        if self._config.knn_skip_threshold is not None:
            raise ConfigurationError(
                "--knn-skip-threshold spares searches in translation, but a combiner learns from all positions: pass "
                "it to fairseq-generate alone"
            )
        if isinstance(getattr(stock, "finetune_from_model", None), str) and (refused := _refused_by_stock(stock)):
            raise ConfigurationError(
                f"fairseq takes no {refused} beside --finetune-from-model: name the base with --knn-base-path instead"
            )
        moved, named = self._config.knn_base_path, getattr(stock, "finetune_from_model", None)
        if moved is None and not isinstance(named, str):
            raise ConfigurationError(
                "a combiner is trained on top of a model: name its checkpoint with --finetune-from-model BASE.pt"
            )
        self._base_path = str(moved or named)
        self._max_tokens, self._max_sentences = getattr(stock, "max_tokens", None), getattr(stock, "batch_size", None)
        self._splits: dict[str, Any] = {}
        self._owners: dict[str, list[tuple[Datastore, int]]] = {}
        self._caches: dict[str, CachedRetrieval] = {}
        self._made: Augmentation | None = None
        self.progress: dict[str, Any] = {}

    # --- model ------------------------------------------------------------------------------------

    def build_model(self, build: Callable[[Any], nn.Module], config: Any, symbols: list[str]) -> nn.Module:
        """The base model, frozen, with an untrained combiner.

        Args:
            build: makes a model of its settings.
            config: settings from the command line, of which the architecture must be of the base's class. The base's
                own dimensions count: the published WMT19 models call themselves ``transformer_wmt_en_de_big``, and
                everybody trains on them with ``--arch transformer_wmt19_de_en``.
            symbols: of the target dictionary.

        Raises:
            ConfigurationError, DatastoreError, CombinerError: base, datastore and settings do not go together.
        """
        base = read_base(self._base_path, "correct --finetune-from-model, or --knn-base-path if it has moved")
        if not same_model_class(architecture(config), base.architecture):
            raise ConfigurationError(
                f"--arch is {architecture(config)}, but the base model {self._base_path} is a {base.architecture}: "
                f"pass --arch {base.architecture}"
            )
        self._session.open_datastores(self._config)
        model = build(base.config)
        augment(model, self._session.key, lambda: self._augmentation)
        base.load_into(model)
        self._session.check_vocabulary(symbols)
        self._stores = self._session.assign([model])[0]
        combiner = fresh_combiner(self._session.given, self._stores[0].dimension, len(symbols))
        freeze(model, combiner)
        self._note(base, model)
        return model

    def _note(self, base: BaseModel, model: nn.Module) -> None:
        self._model = model
        self._reference = {
            "path": os.path.abspath(base.path),
            "fingerprint": str(knn_decoder(model).knn_fingerprint),
            "architecture": base.architecture,
        }
        combiner = combiner_of(model)
        parameters = sum(parameter.numel() for parameter in combiner.parameters())
        logger.info(
            f"training {parameters:,} parameters of the combiner {combiner.kind}; the base model {base.path} "
            f"({short(self._reference['fingerprint'])}) is frozen"
        )

    @property
    def _combiner(self) -> TrainedCombiner:
        return combiner_of(self._model)

    @property
    def _augmentation(self) -> Augmentation:
        """What searches; opened when it is first needed, and on the device the model is on by then."""
        if self._made is None:
            retriever = open_retriever(self._stores, self._config, self._combiner, training=True)
            project = knn_decoder(self._model).knn_project
            self._made = Augmentation(self._combiner, retriever, project=project)
        return self._made

    # --- data -------------------------------------------------------------------------------------

    def add_split(self, name: str, dataset: Any) -> None:
        """Note a split that was loaded; its batches will say which split they are of.

        Raises:
            ConfigurationError: it is a part of what a datastore was built from, or more than that.
        """
        if not isinstance(dataset.collater, _TaggedBatches):
            dataset.collater = _TaggedBatches(dataset.collater, name)
        self._splits[name] = dataset
        digest = split_digest(dataset)
        self._owners[name] = []
        offset = 0
        for store in self._stores:
            if store.plan is not None and _overlap(name, store.plan.split):
                raise ConfigurationError(
                    f"{store.path} was built from the splits {store.plan.split!r}, which {name!r} has in part, so that "
                    "entries would be their own neighbours unnoticed: train on the same splits, or build the datastore "
                    f"with --gen-subset {name}"
                )
            if store.plan is not None and store.plan.data == digest:
                self._owners[name].append((store, offset))
                logger.info(f"{name!r} is what {store.path} was built from: no entry will be its own neighbour")
            offset += store.entries
        self._caches.pop(name, None)

    def fill_caches(self, max_positions: Any) -> None:
        """With ``--knn-cache``: retrieve for every split what has not been retrieved before.

        Args:
            max_positions: longest source and target that the model takes.
        """
        if self._config.knn_cache is None:
            return
        for name, dataset in self._splits.items():
            if name not in self._caches:
                cache = CachedRetrieval(
                    Path(self._config.knn_cache) / name,
                    model=self._model,
                    datastores=self._stores,
                    dataset=dataset,
                    split=name,
                    k=number_of_neighbours(self._config, self._combiner, self._stores),
                    max_positions=max_positions,
                )
                cache.fill(
                    lambda: self._augmentation.retriever,
                    functools.partial(self._own, name),
                    max_tokens=self._max_tokens,
                    max_sentences=self._max_sentences,
                )
                self._caches[name] = cache

    def _own(self, split: str, sample: Mapping[str, Any]) -> Tensor | None:
        """The entry that every position itself is, int64 (B, T)."""
        target = sample["target"]
        real = target.ne(knn_decoder(self._model).knn_padding)
        own = None
        for store, offset in self._owners[split]:
            first = torch.from_numpy(store.entry_ids(sample["id"].cpu().numpy())).to(target.device)
            entries = first.unsqueeze(-1) + real.cumsum(dim=-1) - 1 + offset
            entries = entries.masked_fill(~real | (first < 0).unsqueeze(-1), -1)
            # Two datastores of the same text hold two entries for a position; of these the first is left out.
            own = entries if own is None else torch.where(own < 0, entries, own)
        return own

    # --- steps ------------------------------------------------------------------------------------

    def step(self, sample: Mapping[str, Any], update: int) -> TrainingStep:
        """What the combiner is told about a batch."""
        split, target = sample[SPLIT], sample["target"]
        if (cache := self._caches.get(split)) is None:
            return TrainingStep(target, self._own(split, sample), update)
        cached = cache.positions(sample, self._augmentation if self._needs_entries else None)
        return TrainingStep(target, None, update, cached)

    @property
    def _needs_entries(self) -> bool:
        combiner = self._combiner
        return combiner.needs_keys or combiner.needs_key_log_probs or combiner.needs_keys_to_train

    def run(self, criterion: Any, update: int, model: nn.Module, sample: Any) -> Any:
        """The criterion's result for a batch, with figures of retrieval in its logging output."""
        step = self.step(sample, update)
        before = self._search_cost()
        inputs = {**sample["net_input"], "knn_step": step}
        loss, size, logged = criterion(model, {**sample, "net_input": inputs})
        figures = {name: value.float() for name, value in step.measured.items()}
        figures |= {name: value - before[name] for name, value in self._search_cost().items()}
        return loss, size, {**logged, **{f"{_SUMS}{name}": value for name, value in figures.items()}}

    def _search_cost(self) -> dict[str, float]:
        if self._made is None:
            # The same names in every process, of which perhaps only one had a cache to fill: fairseq adds up what they
            # log by position, and would wait forever for figures that another does not have.
            return {_SEARCHES: 0.0, _SECONDS: 0.0}
        statistics = self._made.retriever.statistics
        return {_SEARCHES: statistics.searches, _SECONDS: statistics.seconds}

    @staticmethod
    def log(outputs: list[dict[str, Any]]) -> None:
        """Give fairseq the means of the figures (``knn_lambda`` and so on) over all batches and processes."""
        names = {name for output in outputs for name in output if name.startswith(_SUMS)}
        sums = {
            name.removeprefix(_SUMS): float(sum(utils.item(output.get(name, 0.0)) for output in outputs))
            for name in sorted(names)
        }
        searches, seconds = sums.pop(_SEARCHES, 0.0), sums.pop(_SECONDS, 0.0)
        if searches:
            metrics.log_scalar("knn_search_ms", 1000 * seconds / searches, searches, round=2)
        for name, mean in means(sums).items():
            metrics.log_scalar(f"knn_{name}", mean, sums["positions"], round=4)

    # --- checkpoints ------------------------------------------------------------------------------

    @property
    def reference(self) -> dict[str, Any]:
        """What finds the base again and makes the combiner: part of every checkpoint."""
        combiner = self._combiner
        settings = {name: getattr(self._config, name) for name in RECORDED}
        settings["knn_datastore_path"] = _absolute(":".join(str(store.path) for store in self._stores))
        return {"base": self._reference, "combiner": {"kind": combiner.kind, **combiner.config()}, "settings": settings}

    def before_saving(self, trainer: Any) -> None:
        """Note what stock checkpoints forget: how patient training still is, and where relative paths begin."""
        self.progress = {"reference": self.reference, **patience(trainer)}
        # Stock saves the settings as they were given, and fairseq-validate and the hub make the task of them, in
        # whatever directory they run.
        task = trainer.cfg.task
        for name in ("knn_datastore_path", "knn_base_path"):
            if getattr(task, name, None):
                setattr(task, name, _absolute(getattr(task, name)))

    def after_loading(self, trainer: Any, extra_state: Mapping[str, Any] | None, resets: Any) -> None:
        """Go on exactly as a run that was not interrupted would, but for what is to start anew.

        Args:
            trainer: fairseq's, with the checkpoint loaded.
            extra_state: of the checkpoint; ``None`` or without a state of this task at a first start.
            resets: stock's settings of checkpoints, with ``reset_optimizer`` and its like.

        Raises:
            CombinerError: the checkpoint is of another base or combiner.
        """
        progress = (extra_state or {}).get(type(trainer.task).__name__)
        if not progress:
            return
        self._check_resumed(progress["reference"])
        # Each goes with what stock leaves out: the best loss so far, and the schedule.
        schedule = not (resets.reset_optimizer or resets.reset_lr_scheduler)
        restore_patience(
            trainer,
            {
                "stopping": {} if resets.reset_optimizer or resets.reset_meters else progress["stopping"],
                "plateau": progress["plateau"] if schedule else {},
            },
        )
        state = (extra_state or {})["train_iterator"]
        if state["iterations_in_epoch"] == 0 and schedule and not resets.reset_dataloader:
            # The checkpoint was saved before the schedule learned how the epoch's validation went.
            trainer.lr_step(state["epoch"] - 1, (extra_state or {}).get("val_loss"))

    def _check_resumed(self, reference: Mapping[str, Any]) -> None:
        theirs, ours = reference["base"], self._reference
        if theirs["fingerprint"] != ours["fingerprint"]:
            raise CombinerError(
                f"--save-dir holds a combiner trained on {theirs['path']} ({short(theirs['fingerprint'])}), but the "
                f"base model is {ours['path']} ({short(ours['fingerprint'])}): choose another --save-dir, or that base"
            )
        if reference["combiner"] != self.reference["combiner"]:
            raise CombinerError(
                f"--save-dir holds the combiner {reference['combiner']}, but the settings make "
                f"{self.reference['combiner']}: choose another --save-dir, or those settings"
            )

    def save_best(self, directory: str) -> None:
        """Write the combiner into a directory of its own, for ``--knn-combiner-path``."""
        self._combiner.dump(Path(directory) / BEST)


def _absolute(paths: str) -> str:
    """Paths that are separated by ':', from any directory."""
    return ":".join(os.path.abspath(path) for path in paths.split(":"))


def _overlap(one: str, other: str) -> bool:
    """Whether two values of --train-subset or --gen-subset are different ones that name the same split."""
    return one != other and not set(one.split(",")).isdisjoint(other.split(","))


def _refused_by_stock(stock: Any) -> str | None:
    """The option that checkpoint_utils.load_checkpoint raises a ValueError for, which would be a traceback."""
    if getattr(stock, "restore_file", None) not in (None, "checkpoint_last.pt"):
        return "--restore-file"
    resets = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
    return next((f"--{name.replace('_', '-')}" for name in resets if getattr(stock, name, False)), None)


class _TaggedBatches:
    """A collater whose batches say which split they are of: fairseq's dummy batches may be of another one."""

    def __init__(self, collate: Callable[..., Any], split: str) -> None:
        self._collate, self._split = collate, split

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        batch = self._collate(*args, **kwargs)
        return {**batch, SPLIT: self._split} if batch else batch
