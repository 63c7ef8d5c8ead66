"""Multilingual translation whose training learns how much to sample each language."""

import copy
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.data import FairseqDataset
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from torch import nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.distribution import size_distribution
from fairseq_knn.sampling.instance_actors import INSTANCE_ACTORS
from fairseq_knn.sampling.utility import development_weights
from fairseq_knn.tasks.argparse_dataclass import dataclass_of, namespace_of
from fairseq_knn.tasks.dds.checks import check_dds
from fairseq_knn.tasks.dds.data_actor_training import DataActorTraining
from fairseq_knn.tasks.dds.fixed_sampling import FixedSampling
from fairseq_knn.tasks.dds.flags import (
    add_dds_arguments,
    add_scheduler_arguments,
    samples_languages,
)
from fairseq_knn.tasks.dds.language import Language
from fairseq_knn.tasks.dds.language_batches import LanguageBatches, Sampling
from fairseq_knn.tasks.dds.language_gradients import LanguageGradients
from fairseq_knn.tasks.dds.language_settings import (
    check_pairs,
    eval_pairs,
    language_vectors,
    numbers,
    starting_distribution,
)
from fairseq_knn.tasks.dds.packing import Packing
from fairseq_knn.tasks.dds.sentence_selection import SentenceSelection
from fairseq_knn.tasks.scale_normed import ScaleNormed

logger = logging.getLogger("fairseq_knn")


_FLAGS = (TranslationMultiSimpleEpochTask.add_args, add_dds_arguments)
_Flags = dataclass_of(
    "_Flags",
    *_FLAGS,
    interpolated={
        "seed": "common.seed",
        "dataset_impl": "dataset.dataset_impl",
        "train_subset": "dataset.train_subset",
        "valid_subset": "dataset.valid_subset",
        "update_freq": "optimization.update_freq",
        "ddp_backend": "distributed_training.ddp_backend",
    },
)


@dataclass
class TranslationMultiDdsConfig(_Flags):  # type: ignore[misc,valid-type]
    """Settings of stock ``translation_multi_simple_epoch`` and of language sampling."""


@register_task("translation_multi_dds", dataclass=TranslationMultiDdsConfig)
class TranslationMultiDdsTask(ScaleNormed, TranslationMultiSimpleEpochTask):
    """Stock ``translation_multi_simple_epoch`` with MultiDDS, MultiDDS-S and DDS.

    Without a flag of theirs it is the stock task, but that no sentence is dropped where it does not train.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        gen_parser_from_dataclass(parser, TranslationMultiDdsConfig())
        add_scheduler_arguments(parser)

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "TranslationMultiDdsTask":
        args = namespace_of(cfg, *_FLAGS)
        check_pairs(args)
        if args.source_lang is None and args.target_lang is None:
            check_dds(args)
        task: TranslationMultiDdsTask = super().setup_task(args, **kwargs)
        return task

    def __init__(self, args: Namespace, langs: list[str], dicts: dict[str, Any], training: bool) -> None:
        super().__init__(args, langs, dicts, training)
        self.scale_norm = training and args.scale_norm
        self._samples = training and samples_languages(args)
        if training and args.eval_lang_pairs is not None:
            self.eval_lang_pairs = eval_pairs(args.eval_lang_pairs, self.lang_pairs)
        self._actor: DataActorTraining | None = None
        self._selection: SentenceSelection | None = None
        self._batches: LanguageBatches | None = None
        self._development: list[Language] = []
        self._sampling: Sampling | None = None
        self._epoch = 1
        self._micro = (-1, 0)  # update, and batch in it
        self._copied: tuple[int, LanguageGradients] | None = None

    # --- data -------------------------------------------------------------------------------------

    @classmethod
    def load_dictionary(cls, filename: str) -> Any:
        if not Path(filename).exists():
            raise ConfigurationError(
                f"there is no dictionary {filename}: DATA has one for every language, as fairseq-preprocess writes it"
            )
        return super().load_dictionary(filename)

    def check_dicts(self, dicts: dict[str, Any], source_langs: list[str], target_langs: list[str]) -> None:
        """As stock, in a sentence.

        Raises:
            ConfigurationError: the languages of a side have different dictionaries.
        """
        for side, flag, languages, shared in (
            ("source", "--srcdict", source_langs, self.args.source_dict),
            ("target", "--tgtdict", target_langs, self.args.target_dict),
        ):
            for language in languages:
                if shared is None and dicts[language] != dicts[languages[0]]:
                    raise ConfigurationError(
                        f"dict.{language}.txt is another dictionary than dict.{languages[0]}.txt, but all {side} "
                        f"languages share one: binarise them with the same {flag}"
                    )

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """As stock; a development split is loaded for ``--eval-lang-pairs`` alone.

        Raises:
            ConfigurationError: a language has no data in the split.
        """
        pairs = self.lang_pairs if split == self.args.train_subset else self.eval_lang_pairs
        self._check_data(split, pairs)
        with self._pairs(pairs):
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)

    @contextmanager
    def _pairs(self, pairs: list[str]) -> Iterator[None]:
        """Stock loads the pairs of its data manager, whatever the split."""
        stock, self.data_manager.lang_pairs = self.data_manager.lang_pairs, pairs
        try:
            yield
        finally:
            self.data_manager.lang_pairs = stock

    def _check_data(self, split: str, pairs: list[str]) -> None:
        directories = [Path(directory) for directory in utils.split_paths(self.args.data)]
        for pair in pairs:
            source, target = pair.split("-")
            names = [
                f"{split}.{a}-{b}.{side}" for a, b in ((source, target), (target, source)) for side in (source, target)
            ]
            if not any(any(directory.glob(f"{name}*")) for directory in directories for name in names):
                if not self.training:
                    remedy = "correct --gen-subset, --source-lang or --target-lang"
                elif split == self.args.train_subset:
                    remedy = "leave the pair out of --lang-pairs"
                else:
                    remedy = "name the pairs that have some with --eval-lang-pairs"
                raise ConfigurationError(
                    f"{pair} has no data for {split!r}: there is no {names[0]} in {self.args.data}; make it with "
                    f"fairseq-preprocess, or {remedy}"
                )

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any) -> Any:
        # Trainer.get_train_iterator is the only caller in fairseq that passes this argument.
        if "update_epoch_batch_itr" not in kwargs:
            # Stock drops the last sentences when they are no multiple of it.
            kwargs["required_batch_size_multiple"] = 1
        elif self._samples:
            return self._train_batches(dataset, **kwargs)
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def _train_batches(
        self,
        dataset: FairseqDataset,
        *,
        max_tokens: int | None,
        max_sentences: int | None,
        max_positions: Any,
        required_batch_size_multiple: int,
        seed: int,
        num_shards: int,
        shard_id: int,
        num_workers: int,
        epoch: int,
        data_buffer_size: int,
        **_: Any,
    ) -> LanguageBatches:
        if self._batches is None or self._batches.dataset is not dataset:
            languages = self._languages(dataset, max_positions)
            self._max_positions = max_positions
            if self._sampling is None:
                self._sampling = self._start(languages)
            self._batches = LanguageBatches(
                dataset,
                languages,
                self._sampling,
                Packing(max_tokens, max_sentences, required_batch_size_multiple),
                prepare=self._select,
                in_shards=self.has_sharded_data(self.args.train_subset),
                by_sentence=self.args.sample_instance,
                sentences=self.args.virtual_data_size,
                seed=seed,
                num_shards=num_shards,
                shard_id=shard_id,
                num_workers=num_workers,
                buffer_size=data_buffer_size,
                epoch=epoch,
            )
        return self._batches

    @property
    def _batches_filtered(self) -> bool:
        return self._batches is not None and self._batches.filtered

    def _select(self, epoch: int) -> None:
        """Leave sentences out, if their time has come."""
        assert self._batches is not None
        if self._selection is not None and self._selection.due(epoch) and not self._batches_filtered:
            self._batches.keep(self._selection.kept(self._batches.languages, self._batches.packing))

    @staticmethod
    def _languages(dataset: FairseqDataset, max_positions: Any) -> list[Language]:
        languages = []
        for key, part in zip(dataset.keys, dataset.datasets, strict=True):
            language = Language.fitting(key.removeprefix("main:"), part, max_positions)
            if left_out := len(part) - len(language.members):
                logger.warning(
                    f"{language.name}: {left_out:,} of {len(part):,} training sentences are left out, longer than the "
                    f"{max_positions} tokens the model takes"
                )
            languages.append(language)
        return languages

    def _start(self, languages: Sequence[Language]) -> Sampling:
        """Who decides what is read, from the first batch on."""
        names = [language.name for language in languages]
        if self.args.lan_dists is not None:
            initial = starting_distribution(self.args.lan_dists, names)
        else:
            initial = size_distribution(self._sizes(languages), self.args.datasize_t)
        shown = ", ".join(f"{name} {p:.4f}" for name, p in zip(names, initial, strict=True))
        logger.info(f"at first, languages are drawn with the probabilities {shown}")
        if self.args.data_actor in INSTANCE_ACTORS or self.args.data_filter_percentage > 0:
            self._selection = SentenceSelection(self.args, self.source_dictionary, self.target_dictionary, self._model)
        if self.args.data_actor is not None:
            _ = self._development_languages  # what is wrong with them is said now, rather than K updates later
        if self.args.update_language_sampling == -1:
            return FixedSampling(initial)
        weights, development = self.args.language_weight, self.eval_lang_pairs
        self._actor = DataActorTraining(
            self.args,
            names,
            development,
            initial,
            None if weights is None else development_weights(numbers("--language-weight", weights), len(development)),
            language_vectors(self.args.embedding_file, len(names)),
        )
        return self._actor

    def _sizes(self, languages: Sequence[Language]) -> list[int]:
        """Sentences of each language; where DATA is in shards, in all of them."""
        directories = utils.split_paths(self.args.data)
        if len(directories) == 1:
            return [max(len(language.members), 1) for language in languages]
        return [
            sum(
                len(self.data_manager.load_data(str(file).removesuffix(".idx"), None, self.args.dataset_impl))
                for directory in directories
                for file in self._source_files(Path(directory), language.name)
            )
            for language in languages
        ]

    def _source_files(self, directory: Path, pair: str) -> list[Path]:
        source, target = pair.split("-")
        names = (f"{self.args.train_subset}.{a}-{b}.{source}.idx" for a, b in ((source, target), (target, source)))
        return [directory / name for name in names if (directory / name).exists()][:1]

    # --- training ---------------------------------------------------------------------------------

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:
        for name in ("checkpoint_activations", "offload_activations"):
            if self.training and self.args.data_actor is not None and getattr(cfg, name, False):
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} computes activations again in backward passes alone, but rewards "
                    "are gradients that leave .grad as it is: leave it out"
                )
        self._model = super().build_model(cfg, from_checkpoint)
        return self._model

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        self._criterion = super().build_criterion(cfg, *args, **kwargs)
        return self._criterion

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        super().begin_epoch(epoch, model)
        self._epoch = epoch

    def train_step(
        self,
        sample: dict[str, Any],
        model: nn.Module,
        criterion: nn.Module,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Any:
        result = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
        if self._selection is not None and self._selection.learns and not self._batches_filtered:
            # fairseq reads all batches of an update before it trains on the first.
            self._micro = (update_num, self._micro[1] + 1 if self._micro[0] == update_num else 0)
            gradients = self._gradients(update_num)
            self._selection.learn(sample, gradients, self._development_languages, self._micro, ignore_grad)
        return result

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        super().optimizer_step(optimizer, model, update_num)
        if self._actor is None:
            return
        self._actor.updates = update_num + 1
        if self._actor.due():
            assert self._batches is not None
            gradients = self._gradients(self._actor.updates)
            self._actor.round(gradients, self._batches.languages, self._development_languages, self._epoch)
            self._copied = None
        self._actor.log()

    def _gradients(self, update: int) -> LanguageGradients:
        """Of the model; of a copy in float32 where it is in half precision, as steps and products would be lost in it.

        Not by another type of its own parameters: the hooks by which distributed training learns of gradients belong to
        those they have now.

        Args:
            update: within one, the parameters stay the same.
        """
        if all(parameter.dtype.itemsize >= 4 for parameter in self._model.parameters()):
            return LanguageGradients(self._model, self._criterion)
        if self._copied is None or self._copied[0] != update:
            self._copied = update, LanguageGradients(copy.deepcopy(self._model).float(), self._criterion)
        return self._copied[1]

    @property
    def _development_languages(self) -> list[Language]:
        """What rewards are measured on."""
        if not self._development:
            split = self.args.valid_subset.split(",")[0]
            if split not in self.datasets:  # --disable-validation
                self.load_dataset(split)
            for name, part in zip(self.eval_lang_pairs, self.datasets[split].datasets, strict=True):
                language = Language.fitting(name, part, self._max_positions)
                if not len(language.members):
                    raise ConfigurationError(
                        f"{name} has no sentences in {split!r} that the model takes, but rewards are measured on them: "
                        "name the pairs that have some with --eval-lang-pairs"
                    )
                self._development.append(language)
        return self._development

    # --- checkpoints ------------------------------------------------------------------------------

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """What a run that goes on needs, beside what stock keeps and the state of the batches."""
        state = {
            "actor": None if self._actor is None else self._actor.state_dict(),
            "selection": None if self._selection is None else self._selection.state_dict(),
        }
        return {type(self).__name__: state} if any(state.values()) else {}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved this was.

        Raises:
            ConfigurationError: it trained another actor, or one where this run has none.
        """
        for name, part, saved, flag in (
            ("an actor of languages", self._actor, state["actor"], "--update-language-sampling"),
            ("an actor of sentences", self._selection, state["selection"], "--data-actor-step-update"),
        ):
            if saved and part is None:
                raise ConfigurationError(
                    f"the checkpoint in --save-dir has {name}, but this run has none: pass {flag} and the other "
                    "settings it was trained with, or choose another --save-dir"
                )
            if saved and part is not None:
                part.load_state_dict(saved)
