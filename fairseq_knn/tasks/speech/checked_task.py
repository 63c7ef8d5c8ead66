"""Stock's task of speech, which says in a sentence what is wrong with its data."""

from pathlib import Path
from typing import Any

from fairseq.tasks.speech_to_text import SpeechToTextTask

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.argparse_dataclass import dataclass_of, namespace_of
from fairseq_knn.tasks.speech.checks import check_audio, check_manifests, check_settings, check_tags
from fairseq_knn.tasks.speech.manifests import manifests
from fairseq_knn.tasks.speech.sample_rates import check_sample_rates

SpeechToTextConfig = dataclass_of(
    "SpeechToTextConfig",
    SpeechToTextTask.add_args,
    interpolated={"seed": "common.seed", "train_subset": "dataset.train_subset"},
)


class CheckedSpeechTask(SpeechToTextTask):
    """Stock ``speech_to_text``, whose settings may be a dataclass's."""

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> Any:
        """
        Raises:
            ConfigurationError: its configuration or its dictionary is missing or not readable.
        """
        settings = namespace_of(cfg, SpeechToTextTask.add_args)
        check_settings(settings)
        return super().setup_task(settings, **kwargs)

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """
        Raises:
            ConfigurationError: a manifest, audio or a tokeniser is missing, or stock cannot read it.
        """
        data = Path(self.args.data)
        check_manifests(data, split)
        try:
            super().load_dataset(split, *args, **kwargs)
        except (OSError, ImportError) as error:  # tokenisers: their files, and their packages
            raise ConfigurationError(
                f"{' '.join(str(error).split())}: correct pre_tokenizer and bpe_tokenizer of "
                f"{data / self.args.config_yaml}"
            ) from error
        for part in manifests(self.datasets[split]):
            place = str(data / f"{part.split}.tsv")
            check_audio(part, place)
            check_sample_rates(part, place, data / self.args.config_yaml)

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Raises:
            ConfigurationError: translations begin with a tag that is not given.
        """
        check_tags(self.data_cfg, getattr(cfg, "ignore_prefix_size", None), "--ignore-prefix-size")
        return super().build_criterion(cfg, *args, **kwargs)
