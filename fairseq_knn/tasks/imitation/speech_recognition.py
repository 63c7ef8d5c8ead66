"""A speech recognition model that transcribes what a translation model is to read."""

import functools
import hashlib
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import utils
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.speech_to_text import SpeechToTextTask
from fairseq_cli.generate import get_symbols_to_strip_from_output
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.checkpoint_model import load_model, task_settings
from fairseq_knn.storage.digest import file_digest
from fairseq_knn.tasks.argparse_dataclass import namespace_of
from fairseq_knn.tasks.imitation.expert_dictionaries import load_dictionary
from fairseq_knn.tasks.imitation.text_manifest import shown
from fairseq_knn.tasks.imitation.text_processing import read_config, target_side

_ROLE = "a speech recognition model"


class Utterances(NamedTuple):
    """
    Args:
        manifest: that they are from, for messages.
        ids: of the utterances.
        audio: of each one, a file or a part of one, as stock has them.
        frames: how many each one has.
    """

    manifest: str
    ids: Sequence[str]
    audio: Sequence[str]
    frames: Sequence[int]

    def digest(self) -> str:
        """SHA-256 of which audio it is."""
        return hashlib.sha256(json.dumps([self.ids, self.audio, self.frames]).encode()).hexdigest()


@dataclass(frozen=True)
class Loading:
    """
    Args:
        max_tokens: frames of a batch, with padding.
        workers: processes that load audio.
        device: where it is transcribed.
    """

    max_tokens: int
    workers: int
    device: torch.device


class SpeechRecognition:
    """What a model hears, decoded as fairseq-generate does with ``--beam 1``.

    Args:
        checkpoint: of a model that was trained with stock's ``speech_to_text``.
        data: directory with the YAML and the dictionary it was trained with; ``None``: where they were then.

    Raises:
        ConfigurationError: there is no checkpoint.
    """

    def __init__(self, checkpoint: str, data: str | None) -> None:
        if not Path(checkpoint).is_file():
            raise ConfigurationError(f"--asr-model {checkpoint} does not exist: name the checkpoint of {_ROLE}")
        self._checkpoint, self._data = checkpoint, data

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its checkpoint, its YAML and its dictionary, all of which decide what it hears.

        Raises:
            ConfigurationError: one of them is missing, or the model is of another kind.
        """
        files = self._files(task_settings(self._checkpoint, flag="--asr-model", role=_ROLE))
        digests = [file_digest(path) for path in (Path(self._checkpoint), files.yaml, files.dictionary)]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def transcripts(self, utterances: Utterances, done: Sequence[bool], loading: Loading) -> Iterator[dict[int, str]]:
        """Transcribe utterances, the longest first.

        Args:
            utterances: all of a manifest: batches are the same, whatever is done already.
            done: of each one, whether its transcript is not asked for.
            loading: how.

        Yields:
            EncodedTexts of a batch, by number of the utterance.

        Raises:
            ConfigurationError: the model is of another kind or lacks its dictionary; audio is missing, damaged or too
                long.
        """
        _check_audio(utterances)
        task = None

        def task_of(settings: Any) -> SpeechToTextTask:
            nonlocal task
            task = self._task(settings)
            return task

        remedy = "name the directory with the dictionary it was trained with by --asr-data"
        model = load_model(self._checkpoint, task_of, flag="--asr-model", role=_ROLE, remedy=remedy)
        assert task is not None
        if not hasattr(model, "encoder") or not hasattr(model, "decoder"):
            raise ConfigurationError(
                f"--asr-model {self._checkpoint} is a {type(model).__name__}, which has no encoder and decoder: name "
                f"{_ROLE} that has"
            )
        model.to(loading.device).eval().requires_grad_(False)
        audio = SpeechToTextDataset(
            "transcribed", False, task.data_cfg, list(utterances.audio), list(utterances.frames)
        )
        _check_lengths(utterances, min(task.max_positions()[0], model.max_positions()[0]), self._checkpoint)  # type: ignore[operator]
        batches = audio.batch_by_size(audio.ordered_indices(), max_tokens=loading.max_tokens)
        missing = [batch for batch in batches if not all(done[number] for number in batch)]
        loader = DataLoader(
            _Readable(audio),
            batch_sampler=[list(map(int, batch)) for batch in missing],
            collate_fn=_collated(audio),
            num_workers=loading.workers,
        )
        generator = task.build_generator([model], OmegaConf.structured(GenerationConfig(beam=1)))
        restore = target_side(task.data_cfg).restore
        stripped = get_symbols_to_strip_from_output(generator)
        for batch in loader:
            if isinstance(batch, _Unreadable):
                raise ConfigurationError(
                    f"the audio {batch.path} of {utterances.manifest} cannot be read ({batch.reason}): restore it or "
                    "leave its line out"
                )
            sample = utils.move_to_cuda(batch, loading.device) if loading.device.type == "cuda" else batch
            with torch.inference_mode():
                found = task.inference_step(generator, [model], sample)
            texts = (
                task.tgt_dict.string(each[0]["tokens"].int().cpu(), None, extra_symbols_to_ignore=stripped)
                for each in found
            )
            # A line of a manifest has no tabs in a text.
            yield {
                number: " ".join(restore(text).split())
                for number, text in zip(sample["id"].tolist(), texts, strict=True)
            }

    def _task(self, settings: Any) -> SpeechToTextTask:
        files = self._files(settings)
        return SpeechToTextTask(files.settings, load_dictionary(str(files.dictionary), files.remedy))

    def _files(self, settings: Any) -> "_Files":
        """What belongs to the checkpoint.

        Raises:
            ConfigurationError: it is missing, or says what is not available here.
        """
        name = str(getattr(settings, "_name", None) or getattr(settings, "task", ""))
        if not name.startswith("speech_to_text"):
            raise ConfigurationError(
                f"--asr-model {self._checkpoint} was trained with --task {name}, but transcripts are made by {_ROLE} "
                "that was trained with --task speech_to_text: name its checkpoint, or transcribe with fairseq-generate "
                "and put that into the column asr_text"
            )
        arguments: Namespace = namespace_of(settings, SpeechToTextTask.add_args)
        arguments.data = self._data or arguments.data
        arguments.train_subset = None
        path = Path(arguments.data) / arguments.config_yaml
        remedy = (
            f"name with --asr-data the directory that has the YAML and the dictionary --asr-model {self._checkpoint} "
            "was trained with"
        )
        if not path.is_file():
            raise ConfigurationError(f"there is no {path}: {remedy}")
        config = read_config(path)
        tags = [
            name for name in ("prepend_tgt_lang_tag", "prepend_bos_and_append_tgt_lang_tag") if config.config.get(name)
        ]
        if tags or config.speaker_set_filename:
            raise ConfigurationError(
                f"{path} has {(*tags, 'speaker_set_filename')[0]}, but --asr-model hears audio alone: transcribe with "
                "fairseq-generate and put that into the column asr_text"
            )
        dictionary = path.parent / config.vocab_filename
        if not dictionary.is_file():
            raise ConfigurationError(f"there is no dictionary {dictionary}: {remedy}")
        return _Files(arguments, path, dictionary, remedy)


class _Files(NamedTuple):
    """Settings of a speech recognition model's task, its YAML and its dictionary, and what to do if they are wrong."""

    settings: Namespace
    yaml: Path
    dictionary: Path
    remedy: str


class _Unreadable(NamedTuple):
    path: str
    reason: str


class _Readable(torch.utils.data.Dataset[Any]):
    """Items of a data set; in the place of one that cannot be read, which file that is (loading workers cannot raise an
    error in one sentence)."""

    def __init__(self, audio: SpeechToTextDataset) -> None:
        self._audio = audio

    def __getitem__(self, number: int) -> Any:
        try:
            return self._audio[number]
        except Exception as error:  # whatever numpy, soundfile or a transform says
            return _Unreadable(self._audio.audio_paths[number], " ".join(str(error).split())[:200])


def _collated(audio: SpeechToTextDataset) -> Any:
    def collate(items: list[Any]) -> Any:
        return next((item for item in items if isinstance(item, _Unreadable)), None) or audio.collater(items)

    return collate


def _check_audio(utterances: Utterances) -> None:
    """
    Raises:
        ConfigurationError: a file does not exist.
    """
    there: dict[str, bool] = {}
    missing = []
    for number, audio in enumerate(utterances.audio):
        file = audio if Path(audio).exists() else audio.split(":")[0]  # of a part: file, place, bytes
        if not there.setdefault(file, Path(file).is_file()):
            missing.append(number)
    if missing:
        raise ConfigurationError(
            f"the audio of {len(missing):,} of {len(utterances.ids):,} utterances of {utterances.manifest} does not "
            f"exist (ids {shown(utterances.ids, missing)}; {utterances.audio[missing[0]]}): correct the column audio, "
            "or audio_root in the data's YAML"
        )


def _check_lengths(utterances: Utterances, most: int, checkpoint: str) -> None:
    """
    Raises:
        ConfigurationError: an utterance is longer than the model takes.
    """
    long = np.flatnonzero(np.asarray(utterances.frames) > most).tolist()
    if long:
        raise ConfigurationError(
            f"{len(long):,} of {len(utterances.ids):,} utterances of {utterances.manifest} have more frames than "
            f"--asr-model {checkpoint} takes, {most:,} (ids {shown(utterances.ids, long)}): leave these lines out"
        )
