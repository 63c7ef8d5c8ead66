"""Text translation that learns from an expert, as the second part of a cascade or on its own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.asr_transcripts import COLUMN, asr_transcripts
from fairseq_knn.tasks.imitation.expert_dictionaries import load_dictionary
from fairseq_knn.tasks.imitation.imitation_task import ImitationTask
from fairseq_knn.tasks.imitation.speech_recognition import Loading, SpeechRecognition, Utterances
from fairseq_knn.tasks.imitation.text_manifest import Columns, check_filled, read_columns, require
from fairseq_knn.tasks.imitation.text_pairs import TextPairs, encode_side
from fairseq_knn.tasks.imitation.text_processing import TwoSided, expert_side, read_config, source_side, target_side
from fairseq_knn.tasks.imitation.transcripts import check_lengths, encode_transcripts

logger = logging.getLogger("fairseq_knn")

_SPOKEN, _TRANSLATION = "src_text", "tgt_text"
_HEARS = "student_reads_speech_recognition"  # in checkpoints


@dataclass
class TranslationImitkdConfig(TranslationConfig):
    """Flags of stock ``translation``, and what the student reads; those of imitation are the criterion's."""

    config_yaml: str = field(
        default="config.yaml", metadata={"help": "YAML in the data's directory, as stock's speech_to_text has it"}
    )
    # fairseq makes flags of Optional[X], not of X | None.
    asr_model: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "checkpoint of a speech recognition model that transcribes the columns audio and n_frames, once, "
            "for the student, which otherwise reads the column asr_text, or without that src_text"
        },
    )
    asr_data: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "directory with the YAML and the dictionary of --asr-model (where they were when it was trained)",
            "argparse_alias": "--path-asr-model",
        },
    )
    asr_cache: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "directory where the transcripts of --asr-model are kept (that of --save-dir)"},
    )
    asr_max_tokens: int = field(default=40000, metadata={"help": "frames of a batch that --asr-model transcribes"})
    train_subset: str = II("dataset.train_subset")
    save_dir: str = II("checkpoint.save_dir")
    num_workers: int = II("dataset.num_workers")
    cpu: bool = II("common.cpu")


@register_task("translation_imitkd", dataclass=TranslationImitkdConfig)
class TranslationImitkdTask(ImitationTask, TranslationTask):
    """Stock ``translation`` of manifests, whose batches also have what an expert reads: the column ``src_text``.

    The student reads what speech recognition made of it, with its errors.
    """

    cfg: TranslationImitkdConfig

    @classmethod
    def setup_task(cls, cfg: TranslationImitkdConfig, **kwargs: Any) -> Any:
        """
        Raises:
            ConfigurationError: YAML or dictionaries are missing, or flags do not go together.
        """
        _check_flags(cfg)
        config = read_config(Path(cfg.data) / cfg.config_yaml)
        for name in ("prepend_tgt_lang_tag", "prepend_bos_and_append_tgt_lang_tag", "prepend_tgt_lang_tag_as_bos"):
            if config.config.get(name):
                raise ConfigurationError(
                    f"{name} is set in {cfg.config_yaml}, but --task translation_imitkd has no tags of languages: "
                    "leave it out, or write the tags into the texts"
                )
        dictionaries = []
        for key, name in (("src_vocab_filename", config.src_vocab_filename), ("vocab_filename", config.vocab_filename)):
            path = str(Path(cfg.data) / name)
            dictionaries.append(load_dictionary(path, f"name it as {key} in {cfg.config_yaml}"))
            logger.info(f"{key} {path}: {len(dictionaries[-1]):,} symbols")
        return cls(cfg, *dictionaries)

    def __init__(self, cfg: TranslationImitkdConfig, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self._config = read_config(Path(cfg.data) / cfg.config_yaml)
        self._source, self._target = source_side(self._config), target_side(self._config)
        self._hears = self._heard_in_training = False  # this run's training, and that of a checkpoint which is used
        self._recognition = None if cfg.asr_model is None else SpeechRecognition(cfg.asr_model, cfg.asr_data)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        return {**state, _HEARS: True} if self._hears else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._heard_in_training |= bool(state_dict.get(_HEARS))
        super().load_state_dict({name: value for name, value in state_dict.items() if name != _HEARS})

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """The same for a training that goes on, which stock does not hand the state above."""
        return {type(self).__name__: {_HEARS: True}} if self._hears else {}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Go on where the run that saved this was; the training data is loaded already.

        Raises:
            ConfigurationError: its student read what speech recognition made of the data, and this run's does not.
        """
        if state.get(_HEARS) and not self._hears:
            raise ConfigurationError(
                "the student of the checkpoint in --save-dir read transcripts of speech recognition, but this run "
                f"gives it gold ones: name --asr-model (or the data with the column {COLUMN}), or another --save-dir"
            )

    def build_criterion(self, *args: Any, **kwargs: Any) -> Any:
        criterion = super().build_criterion(*args, **kwargs)
        if self._imitation is not None and self.cfg.left_pad_target:
            raise ConfigurationError("prefixes of a student are padded on the right: leave --left-pad-target out")
        return criterion

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Read manifests; with a criterion of imitation, every sentence has its transcript for the expert.

        Args:
            split: name of a manifest without ``.tsv``, or several with commas between them.
            epoch, combine, kwargs: make no difference.

        Raises:
            ConfigurationError: a column or text is missing, too much of it is unknown, or too long for the expert.
        """
        ids, heard, translations, spoken = [], [], [], []
        for name in split.split(","):
            columns = self._columns(name)
            ids += columns["id"]
            heard += self._heard(name, columns)
            self._hears |= split == self.cfg.train_subset and (self._recognition is not None or COLUMN in columns)
            translations += columns[_TRANSLATION]
            spoken += columns.get(_SPOKEN, [])
        directory = Path(self.cfg.data)
        sides = (
            (heard, self.src_dict, self._source, "sources", self._config.src_vocab_filename),
            (translations, self.tgt_dict, self._target, "translations", self._config.vocab_filename),
        )
        source, target = (
            encode_side(texts, dictionary, side.divide, f"{what} of {split!r}", str(directory / vocabulary))
            for texts, dictionary, side, what, vocabulary in sides
        )
        expert = None
        if self._imitation is not None and self._expert_source is not None:
            settings = self._imitation.config
            divide = expert_side(self._config, settings.bpe_codes, self._expert_source.path)
            expert = encode_transcripts(spoken, self._expert_source.dictionary, divide, split, settings.kd_max_oov)
            check_lengths(expert, self._imitation.beliefs.longest[0], "transcripts", split, ids)
        self.datasets[split] = TextPairs(
            source,
            self.src_dict,
            target,
            self.tgt_dict,
            expert,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=self.cfg.left_pad_target,
            shuffle=split != "test",
            pad_to_multiple=self.cfg.required_seq_len_multiple,
        )

    def _columns(self, name: str) -> Columns:
        """Of a manifest, with all that is needed in this run."""
        path = Path(self.cfg.data) / f"{name}.tsv"
        learned = {_SPOKEN: "the expert reads it", _TRANSLATION: "prefixes are taken from it"}
        columns = read_columns(path, ["id", _TRANSLATION])
        if self._expert_source is not None:
            require(columns, list(learned), path)
            for column, purpose in learned.items():
                check_filled(columns, column, path.name, purpose)
        return columns

    def _heard(self, name: str, columns: Columns) -> list[str]:
        """What the student reads.

        Raises:
            ConfigurationError: a column is missing, or gold transcripts are there for a student of other ones.
        """
        path = Path(self.cfg.data) / f"{name}.tsv"
        if self._recognition is not None:
            if COLUMN in columns:
                raise ConfigurationError(
                    f"{path} has the column {COLUMN}, but --asr-model is to make its content: leave one of them out"
                )
            utterances = _utterances(path, columns, self._config.audio_root)
            texts = asr_transcripts(self._recognition, utterances, self._cache, self._loading)
            logger.info(f"{path.name}: the student reads what --asr-model hears")
        elif COLUMN in columns:
            texts = columns[COLUMN]
            logger.info(f"{path.name}: the student reads the column {COLUMN}")
        else:
            if self._heard_in_training:
                raise ConfigurationError(
                    f"{path} has no column {COLUMN} and --asr-model is not given, but the model was trained to read "
                    f"what speech recognition writes: name --asr-model, or add the column {COLUMN} (gold transcripts "
                    "in it, if it is to read these)"
                )
            require(columns, [_SPOKEN], path)
            texts = columns[_SPOKEN]
            logger.info(
                f"{path.name}: the student reads the column {_SPOKEN}, as the expert does, for there is neither the "
                f"column {COLUMN} nor --asr-model"
            )
        blank = sum(not text.strip() for text in texts)
        if blank == len(texts):
            raise ConfigurationError(f"all of what the student is to read of {path} is blank: fill it in")
        if blank:
            logger.warning(f"{path.name}: {blank:,} of {len(texts):,} sentences that the student reads are blank")
        return texts

    @property
    def _cache(self) -> Path:
        return Path(self.cfg.asr_cache or self.cfg.save_dir)

    @property
    def _loading(self) -> Loading:
        use_cuda = torch.cuda.is_available() and not self.cfg.cpu
        device = torch.device("cuda", torch.cuda.current_device()) if use_cuda else torch.device("cpu")
        return Loading(self.cfg.asr_max_tokens, self.cfg.num_workers, device)

    def parts_of(self, dataset: Any) -> Sequence[Any]:
        return [dataset]

    def build_tokenizer(self, args: Any) -> Any:
        return _two_sided(self._source.tokenizer, self._target.tokenizer)

    def build_bpe(self, args: Any) -> Any:
        return _two_sided(self._source.subwords, self._target.subwords)


def _two_sided(source: Any, target: Any) -> TwoSided | None:
    return None if source is None and target is None else TwoSided(source, target)


def _utterances(path: Path, columns: Columns, audio_root: str) -> Utterances:
    """
    Raises:
        ConfigurationError: columns are missing, or are not of audio.
    """
    require(columns, ["audio", "n_frames"], path)
    wrong = next((text for text in columns["n_frames"] if not text.isdecimal()), None)
    if wrong is not None:
        raise ConfigurationError(f"column n_frames of {path} has {wrong!r}, which is no number: correct it")
    audio = [str(Path(audio_root) / place) for place in columns["audio"]]
    return Utterances(path.name, columns["id"], audio, list(map(int, columns["n_frames"])))


def _check_flags(cfg: TranslationImitkdConfig) -> None:
    """
    Raises:
        ConfigurationError: flags of stock's are not available here, or some lack another one.
    """
    for flag, given in (
        ("--load-alignments", cfg.load_alignments),
        ("--truncate-source", cfg.truncate_source),
        ("--num-batch-buckets", cfg.num_batch_buckets > 0),
        ("--upsample-primary", cfg.upsample_primary not in (-1, 1)),
    ):
        if given:
            raise ConfigurationError(f"{flag} is not available with --task translation_imitkd: leave it out")
    if cfg.asr_model is None:
        for flag, value in (("--asr-data", cfg.asr_data), ("--asr-cache", cfg.asr_cache)):
            if value is not None:
                raise ConfigurationError(f"{flag} is about --asr-model, which is missing: name it or leave {flag} out")
    if cfg.asr_max_tokens < 1:
        raise ConfigurationError(f"--asr-max-tokens is {cfg.asr_max_tokens}, but must be at least 1: correct it")
