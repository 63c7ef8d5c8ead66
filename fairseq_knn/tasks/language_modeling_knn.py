"""Language modelling with a datastore (kNN-LM: Khandelwal et al. 2020, arXiv 1911.00172; RetoMaton)."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask
from omegaconf import II
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.tasks.knn.config import LanguageModelKnnConfig
from fairseq_knn.tasks.knn.context_window import ContextWindow
from fairseq_knn.tasks.knn.documents import BlockDocuments
from fairseq_knn.tasks.knn.session import vocabulary_of
from fairseq_knn.tasks.knn.task import KnnTask

_SHARD_TOKENS = 262_144
_SHARD_LINES = 8192


@dataclass
class LanguageModelingKnnConfig(LanguageModelKnnConfig, LanguageModelingConfig):
    """Settings of stock ``language_modeling`` and of retrieval."""

    # Of fairseq-eval-lm.
    post_process: Any = II("common_eval.post_process")  # noqa: RUF009


@register_task("language_modeling_knn", dataclass=LanguageModelingKnnConfig)
class LanguageModelingKnnTask(KnnTask, LanguageModelingTask):
    """Stock ``language_modeling`` with nearest-neighbour retrieval, for every decoder.

    Stock fairseq-eval-lm builds datastores and scores text, fairseq-generate and fairseq-interactive continue it.
    """

    knn_config = LanguageModelKnnConfig
    knn_units = "blocks"
    knn_too_long = "pass a smaller --tokens-per-sample, as the model was trained with"
    knn_trains = False
    knn_trains_with = (
        "language models mix with the vanilla combiner, whose k, lambda and temperature `fairseq-knn tune` finds"
    )
    _context_window = 0
    _generating = False

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """As stock, but without a traceback where the context leaves nothing of the blocks.

        Raises:
            ConfigurationError: it does, or see :meth:`KnnTask.load_dataset`.
        """
        # fairseq-eval-lm has taken the context off already; lines are blocks however long they are.
        if self.args.tokens_per_sample < 1 and self._break_mode != "eos":
            raise ConfigurationError(
                "--context-window is not below --tokens-per-sample, and fairseq-eval-lm takes the context off the "
                "block, so that nothing is left: for 1536 new tokens after a context of 1536, say --tokens-per-sample "
                "3072 --context-window 1536"
            )
        super().load_dataset(split, *args, **kwargs)

    def eval_lm_dataloader(
        self,
        dataset: Any,
        max_tokens: int | None = 36000,
        batch_size: int | None = None,
        max_positions: Any = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 1,
        data_buffer_size: int = 10,
        context_window: int = 0,
    ) -> Any:
        """As stock, with every block, and with a context that does not depend on shards and workers.

        Raises:
            ConfigurationError: the settings make perplexity infinite, or stock would end in a traceback.
        """
        self._check_scoring()
        self._join_subwords()
        self._context_window = context_window
        if context_window > 0:
            dataset = ContextWindow(dataset, self.args.tokens_per_sample, context_window)
        iterator = self.get_batch_iterator(
            dataset=dataset,
            max_tokens=max_tokens,
            max_sentences=batch_size,
            max_positions=max_positions,
            ignore_invalid_inputs=True,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            data_buffer_size=data_buffer_size,
        )
        if self._build is not None:
            self._build.open()
        elif self.knn.serving:
            self.knn.prepare(vocabulary_of(self.target_dictionary))
        return iterator.next_epoch_itr(shuffle=False)

    def _check_scoring(self) -> None:
        if not self.knn.building and self.knn.serving and self.knn.config.knn_lambda == 1:
            raise ConfigurationError(
                "--knn-lambda 1 gives every token without a neighbour the probability 0, and the text an infinite "
                "perplexity: choose it below 1"
            )
        process = getattr(self._settings, "post_process", None)
        if isinstance(process, str) and process not in ("subword_nmt", "@@ "):
            raise ConfigurationError(
                f"fairseq-eval-lm joins subwords of subword_nmt alone, but --remove-bpe (--post-process) is {process}: "
                "leave it out (perplexity is then per subword)"
            )

    def _join_subwords(self) -> None:
        """Let ``--remove-bpe`` without a value do what it says.

        It stands for ``subword_nmt``, and fairseq-eval-lm, which reads it after this, looks for symbols that end in
        that very name: it finds none, and perplexity would silently be per subword.
        """
        if getattr(self._settings, "post_process", None) == "subword_nmt":
            self._settings._get_root().common_eval.post_process = "@@ "

    def _split_of(self, dataset: Any) -> str | None:
        return super()._split_of(dataset.dataset if isinstance(dataset, ContextWindow) else dataset)

    @contextlib.contextmanager
    def _around(self, sample: Any) -> Iterator[None]:
        """fairseq-eval-lm scores a batch itself; what the decoder computes of it is looked at from here."""
        if not sample or self._generating:
            yield
            return
        decoder = knn_decoder(self.knn.models[0])
        target = self._asked(sample["target"])
        device = next(self.knn.models[0].parameters()).device
        with decoder.knn_scoring(target.to(device)):
            if self._build is None:
                yield
            else:
                with decoder.knn_record() as recording:
                    yield
                self._build.add(recording, sample)
        self.count_sentences(sample)
        self._count.tokens += int(target.ne(self.target_dictionary.pad()).sum())

    def _asked(self, target: Tensor) -> Tensor:
        """Targets that count, int64 (B, T): not the token that a block begins with, which nothing predicts."""
        if not self.args.add_bos_token:
            return target
        real = target.ne(self.target_dictionary.pad())
        return target.masked_fill(real & (real.cumsum(dim=1) == 1), self.target_dictionary.pad())

    def build_generator(self, *args: Any, **kwargs: Any) -> Any:
        self._generating = True  # from here on batches come back to the task
        return super().build_generator(*args, **kwargs)

    def _describe_split(self, dataset: Any) -> dict[str, Any]:
        text = self._text(dataset)
        lengths = np.ascontiguousarray(text.dataset.dataset.sizes, dtype=np.int64)
        mode, longest = self._break_mode, self.args.tokens_per_sample
        blocks = _SHARD_LINES if mode == "eos" else max(1, _SHARD_TOKENS // max(1, longest))
        return {
            "data": hashlib.sha256(lengths.tobytes()).hexdigest(),
            "shard_sentences": self.knn.config.knn_shard_sentences or blocks,
            "limits": f"blocks: {mode} {longest}, context {self._context_window}",
        }

    @property
    def _break_mode(self) -> str:
        mode = self.args.sample_break_mode
        return str(getattr(mode, "value", mode) or "none")

    def _describe_entries(self, dataset: Any) -> dict[str, Any]:
        beginning = self.source_dictionary.bos() if self.args.add_bos_token else None
        return {"documents": BlockDocuments(self._text(dataset)), "beginning": beginning}

    @staticmethod
    def _text(dataset: Any) -> Any:
        return dataset.dataset if isinstance(dataset, ContextWindow) else dataset
