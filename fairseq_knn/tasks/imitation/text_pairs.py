"""Sentences and their translations, with what the expert reads beside them."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fairseq.data import Dictionary, LanguagePairDataset
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.transcripts import EncodedTexts, encode_texts

logger = logging.getLogger("fairseq_knn")

_MOST_UNKNOWN = 0.5  # of the symbols of a side: with more, the dictionary is another one's


class Sentences:
    """Encoded sentences, as stock's data sets take them.

    Args:
        encoded: all of them.
    """

    def __init__(self, encoded: EncodedTexts) -> None:
        self.encoded = encoded
        self.sizes = [len(encoded[number]) for number in range(len(encoded))]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, sentence: int) -> Tensor:
        return torch.from_numpy(self.encoded[sentence]).long()


class TextPairs(LanguagePairDataset):
    """Stock's data set; its batches have ``expert_input`` and ``sentence`` outside ``net_input``.

    Args:
        source: what the student reads.
        source_dictionary: of that.
        target: translations.
        target_dictionary: of these.
        expert: what the expert reads, or ``None`` if there is none.
        options: of stock's.

    Attributes:
        first: number of the first sentence in the split, of which this is the whole.
    """

    def __init__(
        self,
        source: Sentences,
        source_dictionary: Dictionary,
        target: Sentences,
        target_dictionary: Dictionary,
        expert: EncodedTexts | None,
        **options: Any,
    ) -> None:
        super().__init__(source, source.sizes, source_dictionary, target, target.sizes, target_dictionary, **options)
        self.first = 0
        self._expert, self._texts = expert, (source, target)

    def collater(self, samples: list[Any], pad_to_length: Any = None) -> dict[str, Any]:
        batch: dict[str, Any] = super().collater(samples, pad_to_length)
        if batch:
            batch["sentence"] = batch["id"].clone()
            if self._expert is not None:
                batch["expert_input"] = self._expert.batch(batch["id"].tolist())
        return batch

    def asked(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What the expert is asked about some references."""
        return self.collater([self[number] for number in numbers])

    def positions(self) -> Sequence[int]:
        """How many positions each reference has, its end counted."""
        return self._texts[1].sizes

    def digest(self) -> str:
        """SHA-256 of targets and what the expert reads; of the lengths of sources, for too long ones are left out."""
        digest = hashlib.sha256(repr(self._texts[0].sizes).encode())
        digest.update(self._texts[1].encoded.digest.encode())
        if self._expert is not None:
            digest.update(self._expert.digest.encode())
        return digest.hexdigest()


def encode_side(
    texts: Sequence[str], dictionary: Dictionary, divide: Callable[[str], str], what: str, path: str
) -> Sentences:
    """Divide what the student reads or writes into symbols.

    Args:
        texts: sentences.
        dictionary: the student's, of that side.
        divide: makes symbols with spaces between them of a text.
        what: texts these are, for messages.
        path: of the dictionary, for messages.

    Raises:
        ConfigurationError: the dictionary has less than half of the symbols.
    """
    encoded = encode_texts(texts, dictionary, divide, what)
    share = encoded.unknown_share
    logger.info(f"{len(texts):,} {what}: {encoded.symbols:,} symbols, of which {path} has {1 - share:.2%}")
    if share > _MOST_UNKNOWN:
        raise ConfigurationError(
            f"{share:.1%} of the {encoded.symbols:,} symbols of the {what} are not in {path} (most often "
            f"{encoded.examples}): name the right dictionary and subwords in the data's YAML (vocab_filename and "
            "bpe_tokenizer of translations, src_vocab_filename and src_bpe_tokenizer of what is translated)"
        )
    return Sentences(encoded.sentences)
