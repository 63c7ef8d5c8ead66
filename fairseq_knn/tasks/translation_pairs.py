"""Translation of sentence pairs that are shuffled window by window."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.accounting import AccountedBatches, SentenceCount
from fairseq_knn.tasks.split_errors import split_errors
from fairseq_knn.tasks.too_long import refuse_too_long
from fairseq_knn.tasks.train_iterator import train_iterator
from fairseq_knn.tasks.window_batches import WindowBatches, divide, pack

logger = logging.getLogger("fairseq_knn")

_CHECK_SPLIT = "check the data directory and the names of its splits"
_TOO_LONG = "raise --max-source-positions and --max-target-positions if the model allows it"


@dataclass
class TranslationPairsConfig(TranslationConfig):
    """Settings of stock ``translation``, and how far pairs are shuffled."""

    shuffle_window: int = field(
        default=10000,
        metadata={
            "help": "consecutive training pairs that are made batches of and shuffled together, in every epoch anew; "
            "0: the file's order"
        },
    )


@register_task("translation_pairs", dataclass=TranslationPairsConfig)
class TranslationPairsTask(TranslationTask):
    """Stock ``translation``, whose training pairs come window by window.

    Within a window batches are made of pairs of similar length, as stock makes them, and shuffled in every epoch anew.
    Every pair is in one batch, and a run that was interrupted goes on with the same batches. Outside training every
    sentence is processed and counted.
    """

    cfg: TranslationPairsConfig

    @classmethod
    def setup_task(cls, cfg: TranslationPairsConfig, **kwargs: Any) -> Any:
        if cfg.shuffle_window < 0:
            raise ConfigurationError(
                f"--shuffle-window is {cfg.shuffle_window}, but is a number of pairs: correct it, or 0 for the file's "
                "order"
            )
        return super().setup_task(cfg, **kwargs)

    def __init__(self, cfg: TranslationPairsConfig, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self._count = SentenceCount()
        self._train_batches: WindowBatches | None = None

    # --- data -------------------------------------------------------------------------------------

    @classmethod
    def load_dictionary(cls, filename: str) -> Dictionary:
        if not Path(filename).exists():
            raise ConfigurationError(
                f"there is no dictionary {filename}: correct the data directory, --source-lang or --target-lang"
            )
        return super().load_dictionary(filename)

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """As stock.

        Raises:
            ConfigurationError: the split does not exist, or has no sentences.
        """
        with split_errors(split, _CHECK_SPLIT):
            super().load_dataset(split, *args, **kwargs)

    def filter_indices_by_size(
        self, indices: Any, dataset: Any, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """As stock, but a sentence that is too long ends the run with a sentence instead of a traceback.

        Raises:
            ConfigurationError: there are such sentences and they are not to be skipped.
        """
        if not ignore_invalid_inputs:
            refuse_too_long(indices, dataset, max_positions, "tokens")
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        # Trainer.get_train_iterator is the only caller in fairseq that passes this argument.
        if "update_epoch_batch_itr" in kwargs:
            return train_iterator(self._batches_to_train, dataset, kwargs)
        kwargs["required_batch_size_multiple"] = 1  # stock drops what is left over
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if self._train_batches is not None:  # a validation
            return iterator
        split = next((name for name, data in self.datasets.items() if data is dataset), None)
        if split is None:  # typed text
            self._count.expect_input(dict)
            return iterator
        if not len(dataset):
            raise ConfigurationError(f"the split {split!r} has no sentences: {_CHECK_SPLIT}")
        self._count.expect_batches(split, iterator, kwargs.get("max_positions"), "tokens", _TOO_LONG)
        return AccountedBatches(iterator, lambda: self._count.end({}))

    def _batches_to_train(
        self,
        dataset: FairseqDataset,
        *,
        max_tokens: int | None,
        max_sentences: int | None,
        max_positions: Any,
        ignore_invalid_inputs: bool,
        required_batch_size_multiple: int,
        seed: int,
        epoch: int,
        data_buffer_size: int,
        grouped_shuffling: bool,
        disable_iterator_cache: bool,
        update_epoch_batch_itr: bool,
        **options: Any,
    ) -> WindowBatches:
        """What stock's ``get_batch_iterator`` is for other tasks."""
        if grouped_shuffling:
            raise ConfigurationError(
                "--grouped-shuffling is not available with --task translation_pairs, whose batches are shuffled within "
                "windows: leave it out"
            )
        known = self._train_batches
        if known is not None and known.dataset is dataset and not disable_iterator_cache and not update_epoch_batch_itr:
            return known
        with data_utils.numpy_seed(seed + epoch):
            order = dataset.ordered_indices()
        order = self.filter_indices_by_size(order, dataset, max_positions, ignore_invalid_inputs)
        if not len(order):
            raise ConfigurationError(
                f"all {len(dataset):,} training pairs are longer than the {max_positions} tokens the model takes, so "
                f"that nothing is left: {_TOO_LONG}, and --max-tokens"
            )
        window = self.cfg.shuffle_window
        windows = [
            pack(dataset, part, max_tokens, max_sentences, required_batch_size_multiple)
            for part in divide(order, window)
        ]
        logger.info(
            f"{len(order):,} training pairs in {sum(map(len, windows)):,} batches, "
            + (f"shuffled in windows of {window:,} pairs" if window else "in the order of the file")
        )
        self._train_batches = WindowBatches(
            dataset, windows, seed=seed, buffer_size=data_buffer_size, disable_shuffling=window == 0, **options
        )
        return self._train_batches

    # --- counting ---------------------------------------------------------------------------------

    def valid_step(self, sample: Any, model: nn.Module, criterion: Any, **kwargs: Any) -> Any:
        self._count.add(sample)
        return super().valid_step(sample, model, criterion, **kwargs)

    def inference_step(self, generator: Any, models: list[nn.Module], sample: Any, *args: Any, **kwargs: Any) -> Any:
        self._count.add(sample)
        return super().inference_step(generator, models, sample, *args, **kwargs)
