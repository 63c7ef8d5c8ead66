"""Speech translation that learns from an expert."""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask
from torch import nn

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.tasks.imitation.imitation_task import ImitationTask
from fairseq_knn.tasks.imitation.speech_settings import check_heard, check_imitated
from fairseq_knn.tasks.imitation.text_processing import expert_side, read_config
from fairseq_knn.tasks.imitation.transcribed_speech import TranscribedSpeech, with_parts
from fairseq_knn.tasks.imitation.transcripts import check_lengths, check_spoken, encode_references, encode_transcripts
from fairseq_knn.tasks.speech.checked_task import CheckedSpeechTask, SpeechToTextConfig
from fairseq_knn.tasks.speech.manifests import manifests


@dataclass
class SpeechToTextImitkdConfig(SpeechToTextConfig):
    """Settings of stock ``speech_to_text``; those of imitation are the criterion's."""


@register_task("speech_to_text_imitkd", dataclass=SpeechToTextImitkdConfig)
class SpeechToTextImitkdTask(ImitationTask, CheckedSpeechTask):
    """Stock ``speech_to_text`` whose batches also have what an expert reads: the transcript, column ``src_text``."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        gen_parser_from_dataclass(parser, SpeechToTextImitkdConfig())

    def build_model(self, args: Any, from_checkpoint: bool = False) -> nn.Module:
        """As stock.

        Raises:
            ConfigurationError: what the model is to begin with is missing, no checkpoint, or of another architecture.
        """
        pretrained = {} if from_checkpoint else _pretrained(args)
        for flag, path in pretrained.items():
            if not Path(path).is_file():  # stock warns, and trains from scratch
                raise ConfigurationError(
                    f"{flag} {path} does not exist: name the checkpoint of the model to start from, or leave it out to "
                    "start from scratch"
                )
        try:
            model: nn.Module = super().build_model(args, from_checkpoint)
        except Exception as error:  # reading what is no pickle can raise anything
            if not pretrained or isinstance(error, UserError):
                raise
            named = " and ".join(f"{flag} {path}" for flag, path in pretrained.items())
            raise ConfigurationError(
                f"the model cannot begin with {named} ({' '.join(str(error).split())[:200]}): name the checkpoint of a "
                "model of the same architecture and sizes, or leave it out to start from scratch"
            ) from error
        return model

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """As stock.

        Raises:
            ConfigurationError: a criterion of imitation does not go with the data or with other flags.
        """
        criterion = super().build_criterion(cfg, *args, **kwargs)
        if self._imitation is not None:
            check_imitated(self.data_cfg, self.multitask_tasks)
        return criterion

    def _task_of_hearing_expert(self) -> Any:
        return SpeechToTextTask(self.args, self.tgt_dict)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """As stock; with a criterion of imitation, every utterance has its transcript for the expert.

        Raises:
            ConfigurationError: a transcript is missing, or too much of them is unknown to the expert.
        """
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if self._imitation is None:
            return
        parts, first = [], 0
        divide = None
        if self._expert_source is not None:
            config = read_config(Path(self.args.data) / self.args.config_yaml)
            divide = expert_side(config, self._imitation.config.bpe_codes, self._expert_source.path)
        for stock in manifests(self.datasets[split]):
            check_heard(stock, self._imitation.config)
            texts = [stock.get_tokenized_tgt_text(number) for number in range(len(stock))]
            most = self._imitation.config.kd_max_oov
            references = encode_references(texts, self.tgt_dict, stock.split, stock.ids, most)
            longest = self._imitation.beliefs.longest[1]
            if longest is not None and longest < self.args.max_target_positions:  # beyond that, they are not trained on
                check_lengths(references, longest, "translations", stock.split, stock.ids)
            transcripts = None
            if self._expert_source is not None and divide is not None:
                check_spoken(stock.src_texts, stock.split, stock.ids)
                transcripts = encode_transcripts(
                    stock.src_texts,
                    self._expert_source.dictionary,
                    divide,
                    stock.split,
                    most,
                )
                longest = self._imitation.beliefs.longest[0]
                check_lengths(transcripts, longest, "transcripts", stock.split, stock.ids)
            parts.append(TranscribedSpeech(stock, references, transcripts, first, self.args.seed))
            first += len(stock)
        self.datasets[split] = with_parts(self.datasets[split], parts)

    def parts_of(self, dataset: Any) -> Sequence[Any]:
        return manifests(dataset)


def _pretrained(args: Any) -> dict[str, str]:
    """Checkpoints that a new model takes parts of, by their flags."""
    parts = {f"--load-pretrained-{part}-from": f"load_pretrained_{part}_from" for part in ("encoder", "decoder")}
    return {flag: path for flag, name in parts.items() if (path := getattr(args, name, None))}
