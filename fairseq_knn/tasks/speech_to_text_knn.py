"""Speech translation with a datastore."""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from torch import nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.knn.config import KnnConfig
from fairseq_knn.tasks.knn.task import KnnTask
from fairseq_knn.tasks.speech.checked_task import CheckedSpeechTask, SpeechToTextConfig
from fairseq_knn.tasks.speech.checks import audio_file, check_tags
from fairseq_knn.tasks.speech.stored import as_stored


@dataclass
class SpeechToTextKnnConfig(KnnConfig, SpeechToTextConfig):
    """Settings of stock ``speech_to_text`` and of retrieval."""


@register_task("speech_to_text_knn", dataclass=SpeechToTextKnnConfig)
class SpeechToTextKnnTask(KnnTask, CheckedSpeechTask):
    """Stock ``speech_to_text`` with nearest-neighbour retrieval."""

    knn_lengths = "frames and tokens"

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        gen_parser_from_dataclass(parser, SpeechToTextKnnConfig())

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> Any:
        task = super().setup_task(cfg, **kwargs)
        if task.knn_training is not None and task.multitask_tasks:
            raise ConfigurationError(
                "--multitask-config-yaml trains further decoders, but --knn-mode train keeps the model frozen and "
                "trains a combiner alone: leave it out"
            )
        return task

    def _as_stored(self, dataset: Any) -> Any:
        return as_stored(dataset)

    def build_generator(self, models: list[nn.Module], args: Any, *rest: Any, **kwargs: Any) -> Any:
        check_tags(self.data_cfg, getattr(args, "prefix_size", None), "--prefix-size")
        named = getattr(args, "eos_token", None) or self.data_cfg.config.get("eos_token")
        if self.data_cfg.prepend_bos_and_append_tgt_lang_tag and not named:
            raise ConfigurationError(
                "translations end with the tag of their language (prepend_bos_and_append_tgt_lang_tag in the "
                "configuration), which takes the place of </s>: name it with --eos-token"
            )
        return super().build_generator(models, args, *rest, **kwargs)

    def get_interactive_tokens_and_lengths(self, lines: Sequence[str], encode_fn: Any) -> Any:
        for line in lines:
            if not Path(audio_file(line, "the input")).is_file():
                raise ConfigurationError(f"the audio file {line} does not exist: give one path in a line")
        return super().get_interactive_tokens_and_lengths(lines, encode_fn)
