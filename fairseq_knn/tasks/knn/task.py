"""What every task with a datastore adds to its stock task."""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.data import data_utils, iterators
from fairseq.sequence_scorer import SequenceScorer
from torch import nn

from fairseq_knn.combiners.loading import make_like
from fairseq_knn.criterions.narrowed import narrow_criterion
from fairseq_knn.datastore import Plan
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.base_model import REFERENCE, check_fingerprint, read_base
from fairseq_knn.models.frozen_base import attach_combiner
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.storage.digest import vocabulary_digest
from fairseq_knn.tasks.accounting import AccountedBatches, SentenceCount
from fairseq_knn.tasks.knn.combiner_training import CombinerTraining
from fairseq_knn.tasks.knn.config import KnnConfig, read_config
from fairseq_knn.tasks.knn.datastore_build import NEEDS_REFERENCES, DatastoreBuild, split_digest
from fairseq_knn.tasks.knn.session import KnnSession, vocabulary_of
from fairseq_knn.tasks.split_errors import split_errors
from fairseq_knn.tasks.too_long import refuse_too_long
from fairseq_knn.tasks.train_iterator import train_iterator

_SHARD_SENTENCES = 8192
_CHECK_SPLIT = "check the data directory and --gen-subset"
_CHECK_SUBSETS = "check the data directory, --train-subset (one split) and --valid-subset"


class KnnTask:
    """Mixed into a stock translation task.

    In ``build_datastore`` mode the references that stock fairseq-generate scores become the entries of a
    datastore; in ``inference`` mode every model loaded from a checkpoint consults datastores; in ``train`` mode
    stock fairseq-train trains a combiner. Training in another mode is the stock task's. Outside training every sentence
    is processed and counted.

    Attributes:
        knn_training: what ``train`` mode adds; ``None`` in the others.
        knn_config: kind of the settings.
        knn_units: what the text is processed in.
        knn_lengths: what their lengths are counted in.
        knn_too_long: what to do if none of these is short enough.
        knn_trains: whether there is a ``train`` mode.
        knn_trains_with: what to do where there is none.
    """

    knn_config: type[KnnConfig] = KnnConfig
    knn_units = "sentences"
    knn_lengths = "tokens"
    knn_too_long = "raise --max-source-positions and --max-target-positions if the model allows it"
    knn_trains = True
    knn_trains_with = ""

    def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(cfg, *args, **kwargs)  # type: ignore[call-arg]
        self.knn = KnnSession(read_config(cfg, self.knn_config))
        self._settings = cfg
        self._count = SentenceCount(self.knn_units)
        self._build: DatastoreBuild | None = None
        self._stored_settings = False
        self.knn_training: CombinerTraining | None = None
        self._valid_iterators: dict[Any, Any] = {}
        self._reference: dict[str, Any] | None = None  # of the checkpoint that is loaded next

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> Any:
        if not cls.knn_trains and read_config(cfg, cls.knn_config).knn_mode == "train":
            raise ConfigurationError(f"--knn-mode train goes with bilingual data: {cls.knn_trains_with}")
        task = super().setup_task(cfg, **kwargs)  # type: ignore[misc]
        task._stored_settings = kwargs.get("from_checkpoint", False)
        if task.knn.config.knn_mode == "train":
            if task._stored_settings:  # of a combiner's checkpoint that is used now
                given = read_config(cfg, cls.knn_config)
                given.knn_mode = "inference"
                task.knn = KnnSession(given)
            else:
                task.knn_training = CombinerTraining(task.knn, cfg)
        return task

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:
        stock = super().build_model  # type: ignore[misc]
        if self._reference is not None:
            reference, self._reference = self._reference, None
            return self._build_referenced(reference, lambda config: stock(config, True))
        if self.knn_training is not None:
            return self.knn_training.build_model(stock, cfg, self.target_dictionary.symbols)  # type: ignore[attr-defined]
        model: nn.Module = stock(cfg, from_checkpoint)
        # fairseq-validate and fairseq's hub make the task a checkpoint was trained with. A base model that was trained
        # with this task is a plain model there, unless a datastore is named.
        if from_checkpoint and not (self._stored_settings and not self.knn.config.knn_datastore_path):
            self.knn.adopt(model)
            if not self.knn.building:
                # Before the parameters are loaded, which would fail in a dictionary of another size.
                self.knn.check_vocabulary(vocabulary_of(self.target_dictionary))  # type: ignore[attr-defined]
        return model

    def _build_referenced(self, reference: dict[str, Any], build: Callable[[Any], nn.Module]) -> nn.Module:
        """The base of a combiner's checkpoint with the combiner, whose parameters fairseq loads next."""
        if self.knn.building:
            raise ConfigurationError(
                "--path names the checkpoint of a combiner, but datastores are built by models: name its base model, "
                f"{reference['base']['path']}"
            )
        given, recorded = self.knn.given, reference["settings"]
        path = given.knn_base_path or reference["base"]["path"]
        base = read_base(path, "the combiner was trained on it; name the place it is at now with --knn-base-path")
        model = build(base.config)
        combiner = make_like(reference["combiner"])
        self.knn.adopt(model, combiner, recorded)
        base.load_into(model)
        check_fingerprint(model, reference["base"]["fingerprint"], path)
        attach_combiner(model, combiner)
        return model

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        return state if self.knn_training is None else {**state, REFERENCE: self.knn_training.reference}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._reference = state_dict.get(REFERENCE)
        super().load_state_dict({name: v for name, v in state_dict.items() if name != REFERENCE})  # type: ignore[misc]

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """What checkpoints keep for a run that goes on, beside what stock keeps."""
        return {} if self.knn_training is None else {type(self).__name__: self.knn_training.progress}

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        criterion = super().build_criterion(cfg, *args, **kwargs)  # type: ignore[misc]
        if self.knn_training is not None and self.knn.config.knn_cache is not None:
            narrow_criterion(criterion, len(self.target_dictionary))  # type: ignore[attr-defined]
        return criterion

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        super().begin_epoch(epoch, model)  # type: ignore[misc]
        if self.knn_training is not None:
            positions = utils.resolve_max_positions(self.max_positions(), model.max_positions())  # type: ignore[attr-defined,operator]
            self.knn_training.fill_caches(positions)

    def train_step(
        self, sample: Any, model: nn.Module, criterion: Any, optimizer: Any, update_num: int, **kwargs: Any
    ) -> Any:
        if self.knn_training is not None:
            criterion = functools.partial(self.knn_training.run, criterion, update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, **kwargs)  # type: ignore[misc]

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)  # type: ignore[misc]
        CombinerTraining.log(logging_outputs)

    def build_generator(self, models: list[nn.Module], args: Any, *rest: Any, **kwargs: Any) -> Any:
        if self.knn.serving:
            if self.knn.building:
                if self._build is None or not getattr(args, "score_reference", False):
                    raise ConfigurationError(NEEDS_REFERENCES)
                self._build.open()
            self.knn.prepare(vocabulary_of(self.target_dictionary))  # type: ignore[attr-defined]
        return super().build_generator(models, args, *rest, **kwargs)  # type: ignore[misc]

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """As stock, but without a traceback for a split that does not exist or has no sentences.

        Raises:
            ConfigurationError: it cannot be translated.
        """
        with split_errors(split, _CHECK_SPLIT if self.knn_training is None else _CHECK_SUBSETS):
            super().load_dataset(split, *args, **kwargs)  # type: ignore[misc]
            if self.knn.building or self.knn_training is not None:
                self.datasets[split] = self._as_stored(self.datasets[split])  # type: ignore[attr-defined]
            if self.knn_training is not None:
                self.knn_training.add_split(split, self.datasets[split])  # type: ignore[attr-defined]

    def filter_indices_by_size(
        self,
        indices: Any,
        dataset: Any,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> Any:
        """As stock, but a sentence that is too long ends the run with a sentence instead of a traceback.

        Raises:
            ConfigurationError: there are such sentences and they are not to be skipped.
        """
        if not ignore_invalid_inputs:
            refuse_too_long(indices, dataset, max_positions, self.knn_lengths)
        return super().filter_indices_by_size(  # type: ignore[misc]
            indices, dataset, max_positions, ignore_invalid_inputs
        )

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        stock = super().get_batch_iterator  # type: ignore[misc]
        # Trainer.get_train_iterator is the only caller in fairseq that passes this argument.
        if "update_epoch_batch_itr" in kwargs:
            return (
                stock(dataset, *args, **kwargs) if self.knn_training is None else train_iterator(stock, dataset, kwargs)
            )
        # Everywhere else no sentence may be dropped: stock throws the last batch away when its size is not a
        # multiple of --required-batch-size-multiple (data_utils.batch_by_size).
        kwargs["required_batch_size_multiple"] = 1
        if self.knn_training is not None:
            # Stock keeps one iterator per dataset; training and validating on the same split needs two.
            if dataset not in self._valid_iterators:
                kwargs["disable_iterator_cache"] = True
                self._valid_iterators[dataset] = stock(dataset, *args, **kwargs)
            return self._valid_iterators[dataset]
        if not self.knn.serving:
            return stock(dataset, *args, **kwargs)
        split = self._split_of(dataset)
        if split is None:
            self._count.expect_input(self.knn.statistics)
            return stock(dataset, *args, **kwargs)
        if not len(dataset):
            raise ConfigurationError(f"the split {split!r} has no sentences: {_CHECK_SPLIT}")
        if self.knn.building:
            iterator, too_long = self._build_iterator(dataset, split, **kwargs)
            self._count.expect(split, sum(map(len, iterator.frozen_batches)), too_long)
        else:
            iterator = stock(dataset, *args, **kwargs)
            self._count.expect_batches(
                split, iterator, kwargs.get("max_positions"), self.knn_lengths, self.knn_too_long
            )
        return AccountedBatches(iterator, self._at_end, self._around)

    def _split_of(self, dataset: Any) -> str | None:
        """Name of the split; ``None`` if it is typed text."""
        return next((name for name, data in self.datasets.items() if data is dataset), None)  # type: ignore[attr-defined]

    def _as_stored(self, dataset: Any) -> Any:
        """A split as datastores are built from it: its sentences numbered from 0, and the same every time."""
        return dataset

    def _around(self, sample: Any) -> AbstractContextManager[None]:
        """The context in which a batch is processed; here everything passes through the task."""
        return nullcontext()

    def _describe_split(self, dataset: Any) -> dict[str, Any]:
        """What a plan says of a split."""
        shard = self.knn.config.knn_shard_sentences or _SHARD_SENTENCES
        return {"data": split_digest(dataset), "shard_sentences": shard}

    def _describe_entries(self, dataset: Any) -> dict[str, Any]:
        """What is to be known of the targets of a split, beside themselves: arguments of :class:`DatastoreBuild`."""
        return {}

    def _build_iterator(
        self,
        dataset: Any,
        split: str,
        *,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        data_buffer_size: int = 0,
        **_: Any,
    ) -> tuple[iterators.EpochBatchIterator, int]:
        config = self.knn.config
        model, *others = self.knn.models
        if others:
            raise ConfigurationError(
                f"a datastore belongs to one model, but --path names {1 + len(others)}: build one datastore with each"
            )
        directories = utils.split_paths(self._settings.data)
        if any(True for directory in directories[1:] for _ in Path(directory).glob(f"{split}.*")):
            raise ConfigurationError(
                f"DATA names {len(directories)} directories, but {split!r} is read from the first alone: build a "
                "datastore of each, and use them together, separated by ':' in --knn-datastore-path"
            )
        if dataset.collater([dataset[0]]).get("target") is None:
            raise ConfigurationError(
                f"the split {split!r} has no reference translations, and a datastore is made of them: choose a split "
                "that has a target side"
            )
        symbols = vocabulary_of(self.target_dictionary)  # type: ignore[attr-defined]
        described = {"limits": str(max_positions), **self._describe_split(dataset)}
        plan = Plan(
            model=str(knn_decoder(model).knn_fingerprint),
            model_name=type(model).__name__,
            vocabulary=vocabulary_digest(symbols),
            vocabulary_size=len(symbols),
            key=self.knn.key,
            split=split,
            sentences=len(dataset),
            kind=config.kind,
            **described,
        )
        self._build = DatastoreBuild(
            self.knn.path,
            plan,
            self.target_dictionary.pad(),  # type: ignore[attr-defined]
            rank=shard_id,
            world=num_shards,
            overwrite=config.knn_overwrite,
            **self._describe_entries(dataset),
        )
        # The order within a length is random in stock; fixed here, so that equal runs have equal batches.
        with data_utils.numpy_seed(0):
            order = dataset.ordered_indices()
        if max_positions is not None:
            order = self.filter_indices_by_size(order, dataset, max_positions, ignore_invalid_inputs)
        iterator = iterators.EpochBatchIterator(
            dataset=dataset,
            collate_fn=dataset.collater,
            batch_sampler=self._build.batches(dataset, order, max_tokens=max_tokens, max_sentences=max_sentences),
            num_workers=num_workers,
            buffer_size=data_buffer_size,
        )
        return iterator, self._build.left_out

    def count_sentences(self, sample: Any) -> None:
        """Note that a batch was processed."""
        self._count.add(sample)

    def valid_step(self, sample: Any, model: nn.Module, criterion: Any, **kwargs: Any) -> Any:
        if self.knn.serving:  # fairseq-validate
            self.count_sentences(sample)
        if self.knn_training is not None:
            criterion = functools.partial(self.knn_training.run, criterion, 0)
        return super().valid_step(sample, model, criterion, **kwargs)  # type: ignore[misc]

    def inference_step(self, generator: Any, models: list[nn.Module], sample: Any, *args: Any, **kwargs: Any) -> Any:
        step = super().inference_step  # type: ignore[misc]
        self.count_sentences(sample)
        if self._build is None:
            with contextlib.ExitStack() as stack:
                # Where the references are scored, RetoMaton has to know them all.
                if self.knn.config.knn_retomaton and isinstance(generator, SequenceScorer) and self.knn.serving:
                    for model in models:
                        stack.enter_context(knn_decoder(model).knn_scoring(sample["target"]))
                return step(generator, models, sample, *args, **kwargs)
        with knn_decoder(models[0]).knn_record() as recording:
            result = step(generator, models, sample, *args, **kwargs)
        self._build.add(recording, sample)
        return result

    def _at_end(self) -> None:
        if self._build is not None:
            self._build.finish()
        self._count.end(self.knn.statistics())
