"""A recipe's components, built in this process as stock fairseq-hydra-train builds them."""

import traceback
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from omegaconf import OmegaConf

from fairseq_knn.errors import ConfigurationError, UserError


class Built:
    """Task, data, model, criterion, optimizer and schedule; each is built when it is asked for.

    Args:
        configuration: of fairseq-hydra-train.

    Raises:
        UserError: (from each) fairseq refuses the settings.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        from fairseq import utils
        from fairseq.dataclass.configs import FairseqConfig
        from fairseq.dataclass.initialize import add_defaults

        sections = {name: section for name, section in configuration.items() if name != "hydra"}
        with explained("the configuration"):  # a component may lack settings, or look for some that others lack
            cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig), OmegaConf.create(sections))
            add_defaults(cfg)
            self.cfg: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
        OmegaConf.set_struct(self.cfg, True)
        utils.set_torch_seed(self.cfg.common.seed)

    @cached_property
    def task(self) -> Any:
        from fairseq import tasks

        with explained("task"):
            return tasks.setup_task(self.cfg.task)

    @cached_property
    def model(self) -> Any:
        with explained("model"):
            return self.task.build_model(self.cfg.model)

    @cached_property
    def criterion(self) -> Any:
        with explained("criterion"):
            return self.task.build_criterion(self.cfg.criterion)

    @cached_property
    def optimizer(self) -> Any:
        from fairseq import optim

        with explained("optimizer"):
            return optim.build_optimizer(self.cfg.optimizer, [p for p in self.model.parameters() if p.requires_grad])

    @cached_property
    def schedule(self) -> Any:
        from fairseq.optim import lr_scheduler

        with explained("schedule"):
            return lr_scheduler.build_lr_scheduler(self.cfg.lr_scheduler, self.optimizer)

    def batches(self, split: str) -> Any:
        """An epoch of a split, from the task, as training or validation reads it."""
        from fairseq import utils

        dataset = self.cfg.dataset
        training = split == "train"
        with explained(f"{split}_data"):
            self.task.load_dataset(split, combine=False, epoch=1)
            positions = utils.resolve_max_positions(self.task.max_positions(), dataset.max_tokens if training else None)
            iterator = self.task.get_batch_iterator(
                dataset=self.task.dataset(split),
                max_tokens=dataset.max_tokens if training else dataset.max_tokens_valid,
                max_sentences=dataset.batch_size if training else dataset.batch_size_valid,
                max_positions=positions,
                ignore_invalid_inputs=training,
                required_batch_size_multiple=dataset.required_batch_size_multiple,
                seed=self.cfg.common.seed,
                num_shards=1,
                shard_id=0,
                num_workers=0,
                epoch=1,
                data_buffer_size=0,
                disable_iterator_cache=True,
                **(_TRAINING if training else {}),
            )
            return iterator.next_epoch_itr(shuffle=training)


# What stock's trainer gives where it reads training data, and nowhere else.
_TRAINING = {"skip_remainder_batch": False, "grouped_shuffling": False, "update_epoch_batch_itr": False}


class explained:
    """What fairseq or the user's code raises while a step is taken, as an error with the step's name and the place."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            place = traceback.extract_tb(trace)[-1]
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise ConfigurationError(
                f"{self._step} cannot be taken ({reason}; {place.filename}, line {place.lineno}): correct its "
                "settings, or your code"
            ) from error
