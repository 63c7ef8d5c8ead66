"""Speech with what the expert reads beside it."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, ConcatDataset, ResamplingDataset, data_utils
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset

from fairseq_knn.tasks.imitation.transcripts import EncodedTexts, encoder_input


class _Item(NamedTuple):
    spoken: Any
    sentence: int  # its number in the whole split
    transcript: np.ndarray | None


class TranscribedSpeech(BaseWrapperDataset):
    """Stock's data set of one manifest; its batches have ``expert_input`` and ``sentence`` outside ``net_input``.

    What augmentation draws for an utterance depends on the seed, the epoch and the utterance alone, whatever was loaded
    before and by which worker: so an interrupted training goes on as if it had not been.

    Args:
        dataset: of a manifest.
        references: of all its lines.
        transcripts: likewise, or ``None`` if the expert reads none.
        first: number of its first line in the whole split.
        seed: of the training.
    """

    def __init__(
        self,
        dataset: SpeechToTextDataset,
        references: EncodedTexts,
        transcripts: EncodedTexts | None,
        first: int,
        seed: int,
    ) -> None:
        super().__init__(dataset)
        self.first = first
        self._references, self._transcripts, self._seed = references, transcripts, seed
        self._epoch = torch.ones((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers outlive epochs

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> _Item:
        sentence = self.first + int(index)
        with data_utils.numpy_seed(self._seed, int(self._epoch), sentence):
            return _Item(self.dataset[index], sentence, None if self._transcripts is None else self._transcripts[index])

    def collater(self, samples: list[_Item]) -> dict[str, Any]:
        """
        Args:
            samples: of this manifest, or of others of the split: of all of them stock lets the first make batches.
        """
        if not samples:
            return {}
        # Here stock may add noise.
        with data_utils.numpy_seed(self._seed, int(self._epoch), samples[0].sentence):
            batch: dict[str, Any] = self.dataset.collater([item.spoken for item in samples], return_order=True)
        ordered = [samples[row] for row in batch.pop("order").tolist()]
        batch["sentence"] = torch.tensor([item.sentence for item in ordered])
        if self._transcripts is not None:
            transcripts = [item.transcript for item in ordered if item.transcript is not None]
            batch["expert_input"] = encoder_input(transcripts, self._transcripts.pad)
        return batch

    def asked(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What the expert is asked about some references; no audio is read for an expert that reads."""
        if self._transcripts is None:
            return self.collater([self[number] for number in numbers])
        end = self.dataset.tgt_dict.eos()
        prefixes = [np.concatenate([[end], self._tag(number), self._references[number][:-1]]) for number in numbers]
        return {
            "net_input": {"prev_output_tokens": encoder_input(prefixes, self._references.pad)["src_tokens"]},
            "expert_input": self._transcripts.batch(numbers),
            "sentence": torch.tensor([self.first + int(number) for number in numbers]),
        }

    def _tag(self, number: int) -> list[int]:
        """What stock puts before a reference: the language it is in, if the data's YAML says so."""
        stock = self.dataset
        if not stock.cfg.prepend_tgt_lang_tag:
            return []
        return [stock.get_lang_tag_idx(stock.tgt_langs[number], stock.tgt_dict)]

    def positions(self) -> Sequence[int]:
        """How many positions each reference has, its end counted."""
        positions: list[int] = (self._references.lengths + int(self.dataset.cfg.prepend_tgt_lang_tag)).tolist()
        return positions

    def digest(self) -> str:
        """SHA-256 of references and transcripts; of the names of the files where the expert hears them."""
        digest = hashlib.sha256(self._references.digest.encode())
        if self._transcripts is None:
            digest.update("\n".join(self.dataset.audio_paths).encode())
        else:
            digest.update(self._transcripts.digest.encode())
        return digest.hexdigest()


def with_parts(dataset: Any, parts: list[TranscribedSpeech]) -> Any:
    """A split with other data sets in the place of those of its manifests."""
    if not isinstance(dataset, ConcatDataset):
        return parts[0]
    for number, part in enumerate(dataset.datasets):
        if isinstance(part, ResamplingDataset):
            part.dataset = parts[number]
        else:
            dataset.datasets[number] = parts[number]
    return dataset
