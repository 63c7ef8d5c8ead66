"""What fairseq-knn's commands share with stock programs: their flags, models, data and batches.

With a task of language models these are fairseq-eval-lm's, otherwise fairseq-generate's.
"""

import argparse
import ast
import functools
import os
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_knn.errors import ConfigurationError

_SCORED = "language_modeling"  # what tasks of language models begin with
_MAX_TOKENS = 12000  # as fairseq-generate if neither --max-tokens nor --batch-size is given


@dataclass(frozen=True)
class StockRun:
    """A model and a split, as stock fairseq-generate loads them.

    Args:
        cfg: its configuration.
        task: with the split loaded.
        model: in evaluation mode, on its device.
    """

    cfg: Any
    task: Any
    model: Any

    @property
    def max_positions(self) -> Any:
        """Longest source and target that task and model take."""
        return utils.resolve_max_positions(self.task.max_positions(), self.model.max_positions())

    def batches(self) -> Any:
        """The split's batches, every sentence once."""
        dataset = self.cfg.dataset
        if _is_language_model(self.task):
            return self.task.eval_lm_dataloader(
                dataset=self.task.dataset(dataset.gen_subset),
                max_tokens=dataset.max_tokens or _MAX_TOKENS,
                batch_size=dataset.batch_size,
                max_positions=self.max_positions,
                num_workers=dataset.num_workers,
                context_window=self.cfg.eval_lm.context_window,
            )
        if dataset.max_tokens is None and dataset.batch_size is None:
            dataset.max_tokens = _MAX_TOKENS
        return self.task.get_batch_iterator(
            dataset=self.task.dataset(dataset.gen_subset),
            max_tokens=dataset.max_tokens,
            max_sentences=dataset.batch_size,
            max_positions=self.max_positions,
            ignore_invalid_inputs=dataset.skip_invalid_size_inputs_valid_test,
            num_workers=dataset.num_workers,
        ).next_epoch_itr(shuffle=False)

    def count(self, sample: Any) -> None:
        """Note that a batch was processed; where stock's own loop does that, it is done."""
        if not _is_language_model(self.task):
            self.task.count_sentences(sample)

    def move(self, sample: Any) -> Any:
        """A batch on the model's device."""
        return utils.move_to_cuda(sample) if next(self.model.parameters()).is_cuda else sample


def load_stock_run(arguments: list[str], defaults: dict[str, Any], settings: dict[str, Any]) -> StockRun:
    """Load what the arguments of a stock program name.

    Args:
        arguments: as typed.
        defaults: values of flags that are not given.
        settings: values of flags, whatever is given.

    Raises:
        ConfigurationError: the arguments are not the program's, a file is missing, ``--path`` names several models, or
            the split has no references.
    """
    language_model = scores_text(arguments)
    if language_model:
        parser = options.get_eval_lm_parser("language_modeling_knn")
    else:
        parser = options.get_generation_parser(default_task="translation_knn")
    parser.set_defaults(**defaults)
    parser.error = functools.partial(_refuse, "fairseq-eval-lm" if language_model else "fairseq-generate")
    parsed = options.parse_args_and_arch(parser, input_args=arguments)
    if not parsed.path:
        raise ConfigurationError("--path is missing: name the checkpoint of the base model")
    for flag, path in [("--path", path) for path in utils.split_paths(parsed.path)] + [("DATA", parsed.data)]:
        if not os.path.exists(path):
            raise ConfigurationError(f"{flag} names {path}, but there is no such file: correct it")
    for name, value in settings.items():
        setattr(parsed, name, value)
    cfg = convert_namespace_to_omegaconf(parsed)
    if language_model:  # as fairseq-eval-lm does it: blocks and their context together are as long as was asked for
        cfg.task.tokens_per_sample -= cfg.eval_lm.context_window
    task = tasks.setup_task(cfg.task)
    try:
        models, saved = checkpoint_utils.load_model_ensemble(
            utils.split_paths(cfg.common_eval.path),
            arg_overrides=ast.literal_eval(cfg.common_eval.model_overrides),
            task=task,
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise ConfigurationError(
            f"{cfg.common_eval.path} does not fit the dictionaries of the data ({' '.join(str(error).split())[:200]}): "
            "use the data directory it was trained with"
        ) from error
    if len(models) > 1:
        raise ConfigurationError(f"--path names {len(models)} models: each has its own datastore, so name one")
    task.load_dataset(cfg.dataset.gen_subset, **({} if language_model else {"task_cfg": saved.task}))
    dataset = task.dataset(cfg.dataset.gen_subset)
    if dataset.collater([dataset[0]]).get("target") is None:
        raise ConfigurationError(
            f"the split {cfg.dataset.gen_subset!r} has no reference translations, which are needed here: choose a "
            "split that has a target side (--gen-subset)"
        )
    model = models[0].eval()
    if cfg.common.fp16:
        model.half()
    if torch.cuda.is_available() and not cfg.common.cpu:
        model.cuda()
    return StockRun(cfg, task, model)


def scores_text(arguments: list[str]) -> bool:
    """Whether the ``--task`` among arguments is one of language models."""
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--task", default="")
    return bool(asked.parse_known_args(arguments)[0].task.startswith(_SCORED))


def _is_language_model(task: Any) -> bool:
    return hasattr(task, "eval_lm_dataloader")


def _refuse(program: str, message: str) -> NoReturn:
    """Instead of the pages that the program's parser would print."""
    raise ConfigurationError(f"{message} (DATA, --path and other arguments are those of {program})")
