"""What imitating an expert adds to a stock task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import nn

from fairseq_knn.criterions.expert_beliefs import FILLER
from fairseq_knn.criterions.imitation_config import ImitationConfig
from fairseq_knn.criterions.imitation_kd import ImitationCriterion
from fairseq_knn.criterions.student_contexts import unwrapped
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.expert_cache import ExpertCache
from fairseq_knn.models.expert import Expert, load_expert
from fairseq_knn.tasks.imitation.cache_filling import filled_cache
from fairseq_knn.tasks.imitation.expert_dictionaries import (
    check_same,
    dictionary_paths,
    load_dictionary,
    target_dictionary_path,
)
from fairseq_knn.tasks.imitation.pooled_batches import pool_batches
from fairseq_knn.tasks.too_long import refuse_too_long
from fairseq_knn.tasks.train_iterator import train_iterator


class ExpertSource(NamedTuple):
    """The dictionary of the expert's source, and its file."""

    dictionary: Dictionary
    path: Path


class ImitationTask:
    """Mixed into a stock task, whose criterion may then be one of imitation; with another one it is the stock task.

    Outside training, every sentence is processed.
    """

    target_dictionary: Dictionary
    datasets: dict[str, Any]
    _imitation: ImitationCriterion | None = None
    _expert_source: ExpertSource | None = None
    _batching: dict[str, Any] | None = None  # how the training data is made batches of

    def expert_of(self, config: ImitationConfig) -> Expert:
        """The expert that settings name, whose target dictionary is that of this task.

        Raises:
            ConfigurationError: it is missing, of another kind, or has another dictionary.
        """
        hears = str(config.kd_expert_input) == "audio"

        def task_of(settings: Any) -> Any:
            name = str(getattr(settings, "_name", None) or getattr(settings, "task", ""))
            if hears != ("speech" in name or "audio" in name):
                found, wanted = ("hears audio", "reads text") if not hears else ("reads text", "hears audio")
                raise ConfigurationError(
                    f"--expert {config.expert} {found} (it was trained with --task {name}), but this criterion needs "
                    f"one that {wanted}: name another expert, or use --kd-expert-input "
                    f"{'transcript' if hears else 'audio'} (--criterion {'imit_kd' if hears else 'imit_kd_ast'})"
                )
            if hears:
                check_same(self.target_dictionary, load_dictionary(target_dictionary_path(config)))
                return self._task_of_hearing_expert()
            languages = (getattr(settings, "source_lang", None), getattr(settings, "target_lang", None))
            paths = dictionary_paths(config, languages)
            source, target = map(load_dictionary, paths)
            check_same(self.target_dictionary, target)
            self._expert_source = ExpertSource(source, Path(paths[0]))
            return TranslationTask(TranslationConfig(), source, target)

        return load_expert(config.expert, task_of)

    def _task_of_hearing_expert(self) -> Any:
        raise ConfigurationError(
            "--kd-expert-input audio needs audio, which the batches of this task do not have: use --task "
            "speech_to_text_imitkd, or an expert that reads text"
        )

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        criterion = super().build_criterion(cfg, *args, **kwargs)  # type: ignore[misc]
        self._imitation = criterion if isinstance(criterion, ImitationCriterion) else None
        return criterion

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        super().begin_epoch(epoch, model)  # type: ignore[misc]
        if self._imitation is not None:
            _check_student(model)
            if self._imitation.config.kd_cache is not None and self._imitation.beliefs.cache is None:
                self._imitation.beliefs.cache = self._filled_cache(self._imitation, next(model.parameters()).device)

    def _filled_cache(self, criterion: ImitationCriterion, device: torch.device) -> ExpertCache:
        assert self._batching is not None
        parts = self.parts_of(self._batching["dataset"])
        return filled_cache(
            Path(str(criterion.config.kd_cache)),
            criterion.beliefs,
            parts,
            pad=self.target_dictionary.pad(),
            device=device,
            limits=self._batching["max_positions"],
            max_tokens=self._batching["max_tokens"],
            max_sentences=self._batching["max_sentences"],
        )

    def parts_of(self, dataset: Any) -> Sequence[Any]:
        """The data sets a split consists of, each a :class:`~fairseq_knn.tasks.imitation.cache_filling.Part`."""
        raise NotImplementedError

    def train_step(
        self,
        sample: Any,
        model: nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
        **kwargs: Any,
    ) -> Any:
        if self._imitation is not None:
            self._imitation.update = update_num
            if ignore_grad:  # may be development data, after a validation: sentences that a cache does not have
                sample = {**sample, FILLER: True}
        return super().train_step(  # type: ignore[misc]
            sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs
        )

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        super().optimizer_step(optimizer, model, update_num)  # type: ignore[misc]
        if self._imitation is not None:
            self._imitation.update = update_num + 1  # a validation that follows is told the beta there is now

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """As stock, but what is too long ends the run with a sentence instead of a traceback.

        Raises:
            ConfigurationError: there are such sentences and they are not to be skipped.
        """
        if not ignore_invalid_inputs:
            refuse_too_long(indices, dataset, max_positions, "positions")
        return super().filter_indices_by_size(  # type: ignore[misc]
            indices, dataset, max_positions, ignore_invalid_inputs
        )

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        stock = super().get_batch_iterator  # type: ignore[misc]
        # Trainer.get_train_iterator is the only caller in fairseq that passes this argument.
        if "update_epoch_batch_itr" not in kwargs:
            kwargs["required_batch_size_multiple"] = 1  # stock drops what is left over
            return stock(dataset, *args, **kwargs)
        if self._imitation is None:
            return stock(dataset, *args, **kwargs)
        self._batching = {"dataset": dataset, **kwargs}
        iterator = train_iterator(stock, dataset, kwargs)
        self._imitation.plan(len(iterator))
        config = self._imitation.config
        if config.kd_pool > 1:
            pool_batches(iterator, config.kd_pool, config.update_freq)
        return iterator


def _check_student(model: nn.Module) -> None:
    """
    Raises:
        ConfigurationError: it cannot be asked for what imitation needs.
    """
    student = unwrapped(model)
    if not hasattr(student, "encoder") or not hasattr(student, "decoder"):
        raise ConfigurationError(
            f"the student is a {type(student).__name__}, but imitation needs an encoder-decoder model: choose another "
            "--arch"
        )
    if getattr(student.decoder, "adaptive_softmax", None) is not None:
        raise ConfigurationError(
            "--adaptive-softmax-cutoff gives no probabilities of all tokens at once, which the student learns: leave "
            "it out"
        )
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise ConfigurationError(
            "--ddp-backend fully_sharded leaves no process a whole student to decode with: choose another --ddp-backend"
        )
