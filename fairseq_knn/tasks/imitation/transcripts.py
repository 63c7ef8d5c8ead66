"""What is said, as the expert reads it, and references in the student's symbols: encoded once, when data is loaded."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.tokenizer import tokenize_line
from torch import Tensor
from tqdm import tqdm

from fairseq_knn.errors import ConfigurationError

logger = logging.getLogger("fairseq_knn")

_SHOWN = 5


class EncodedTexts:
    """Sentences in symbols, in two arrays, which loading workers share without copying.

    Args:
        tokens: of all sentences, one after another, each with its end: int32 (n,).
        begins: where each one begins, and where the last one ends, int64 (N + 1,).
        pad: symbol of padding.
    """

    def __init__(self, tokens: np.ndarray, begins: np.ndarray, pad: int) -> None:
        self._tokens, self._begins, self.pad = tokens, begins, pad

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, sentence: int) -> np.ndarray:
        first, last = self._begins[sentence : sentence + 2]
        return self._tokens[first:last]

    @property
    def lengths(self) -> np.ndarray:
        """Symbols of each sentence, its end counted, int64 (N,)."""
        return np.diff(self._begins)

    @property
    def digest(self) -> str:
        """SHA-256 of all symbols."""
        return hashlib.sha256(self._begins.tobytes() + self._tokens.tobytes()).hexdigest()

    def batch(self, sentences: Sequence[int]) -> dict[str, Tensor]:
        """Some of them, as :func:`encoder_input`."""
        return encoder_input([self[sentence] for sentence in sentences], self.pad)


def encoder_input(sentences: Sequence[np.ndarray], pad: int) -> dict[str, Tensor]:
    """What the expert's encoder is fed with: ``src_tokens`` int64 (B, S), padded on the right; ``src_lengths``.

    Args:
        sentences: symbols, int32 (t,) each.
        pad: symbol of padding.
    """
    lengths = list(map(len, sentences))
    tokens = np.full((len(sentences), max(lengths)), pad, np.int64)
    for row, sentence in enumerate(sentences):
        tokens[row, : lengths[row]] = sentence
    return {"src_tokens": torch.from_numpy(tokens), "src_lengths": torch.tensor(lengths)}


class Encoded(NamedTuple):
    """
    Args:
        sentences: in symbols.
        symbols: how many they have, ends not counted.
        unknown: how often the dictionary lacks which symbol.
    """

    sentences: EncodedTexts
    symbols: int
    unknown: Counter[str]

    @property
    def unknown_share(self) -> float:
        """Of all symbols."""
        return sum(self.unknown.values()) / max(self.symbols, 1)

    @property
    def examples(self) -> str:
        """The symbols that are lacking most often."""
        return ", ".join(repr(symbol) for symbol, _ in self.unknown.most_common(_SHOWN))


def encode_texts(texts: Sequence[str], dictionary: Dictionary, divide: Callable[[str], str], what: str) -> Encoded:
    """Divide sentences into symbols.

    Args:
        texts: a blank one becomes its end alone.
        dictionary: of the symbols.
        divide: makes symbols with spaces between them of a text.
        what: it is, for the progress bar.
    """
    unknown: Counter[str] = Counter()
    unk, eos = dictionary.unk(), dictionary.eos()
    parts, lengths = [], np.zeros(len(texts) + 1, np.int64)
    for number, text in enumerate(tqdm(texts, desc=what, unit="", leave=False, disable=None)):
        symbols = tokenize_line(divide(text))
        ids = [dictionary.index(symbol) for symbol in symbols]
        unknown.update(symbol for symbol, index in zip(symbols, ids, strict=True) if index == unk)
        parts.append(np.array([*ids, eos], np.int32))
        lengths[number + 1] = len(ids) + 1
    count = int(lengths.sum()) - len(texts)
    return Encoded(EncodedTexts(np.concatenate(parts), lengths.cumsum(), dictionary.pad()), count, unknown)


def encode_transcripts(
    texts: Sequence[str], dictionary: Dictionary, divide: Callable[[str], str], split: str, max_unknown: float
) -> EncodedTexts:
    """Divide what the expert reads into its symbols.

    Args:
        texts: none of them blank.
        dictionary: the expert's, of the source.
        divide: makes symbols with spaces between them of a text.
        split: for messages.
        max_unknown: greatest share of symbols that may not be in the dictionary.

    Raises:
        ConfigurationError: more are not.
    """
    encoded = encode_texts(texts, dictionary, divide, f"transcripts of {split}")
    share = encoded.unknown_share
    logger.info(
        f"{len(texts):,} transcripts of {split!r}, {encoded.symbols:,} symbols, of which the expert knows "
        f"{1 - share:.2%}"
    )
    if share > max_unknown:
        raise ConfigurationError(
            f"{share:.1%} of the {encoded.symbols:,} symbols in the transcripts of {split!r} are not in the expert's "
            f"dictionary (most often {encoded.examples}), more than --kd-max-oov {max_unknown}: process them as the "
            "expert's training data were (--bpe-codes, `fairseq-knn st-data process`), name the right "
            "--expert-vocab-src, or raise --kd-max-oov"
        )
    return encoded.sentences


def encode_references(
    texts: Sequence[str], dictionary: Dictionary, split: str, ids: Sequence[str], max_unknown: float
) -> EncodedTexts:
    """Translations in the symbols of student and expert.

    Args:
        texts: symbols with spaces between them.
        dictionary: the student's.
        split: for messages.
        ids: of the lines, for messages.
        max_unknown: greatest share of symbols that may not be in the dictionary.

    Raises:
        ConfigurationError: more are not, or a translation is blank.
    """
    blank = [number for number, text in enumerate(texts) if not text.strip()]
    if blank:
        examples = ", ".join(ids[number] for number in blank[:_SHOWN])
        raise ConfigurationError(
            f"{len(blank):,} of {len(texts):,} translations of {split}.tsv are blank (column tgt_text; ids "
            f"{examples}), but student and expert continue them: fill them in or leave these lines out"
        )
    encoded = encode_texts(texts, dictionary, str, f"translations of {split}")
    share = encoded.unknown_share
    if share > max_unknown:
        raise ConfigurationError(
            f"{share:.1%} of the {encoded.symbols:,} symbols in the translations of {split!r} are not in the student's "
            f"dictionary (most often {encoded.examples}), more than --kd-max-oov {max_unknown}: process them as the "
            "expert's training data were (bpe_tokenizer of the data's YAML, `fairseq-knn st-data process`), or raise "
            "--kd-max-oov"
        )
    return encoded.sentences


def check_spoken(texts: Sequence[str | None] | None, split: str, ids: Sequence[str]) -> None:
    """
    Raises:
        ConfigurationError: there are no transcripts, or some are blank.
    """
    # A line that ends early has None.
    blank = [number for number, text in enumerate(texts or []) if not (text or "").strip()]
    if texts is None or len(blank) == len(texts):
        raise ConfigurationError(
            f"{split}.tsv has no transcripts, which the expert reads: add them as the column src_text "
            "(`fairseq-knn st-data merge`), or use an expert that hears the audio (--criterion imit_kd_ast)"
        )
    if blank:
        examples = ", ".join(ids[number] for number in blank[:_SHOWN])
        raise ConfigurationError(
            f"{len(blank):,} of {len(texts):,} transcripts of {split}.tsv are blank (column src_text; ids {examples}), "
            "but the expert reads them: fill them in or leave these lines out"
        )


def check_lengths(texts: EncodedTexts, longest: int | None, what: str, split: str, ids: Sequence[str]) -> None:
    """
    Args:
        texts: that an expert reads or continues.
        longest: that it takes.
        what: they are, for the message.
        split: likewise.
        ids: of the lines.

    Raises:
        ConfigurationError: some are longer.
    """
    long = [] if longest is None else np.flatnonzero(texts.lengths > longest).tolist()
    if long:
        examples = ", ".join(ids[number] for number in long[:_SHOWN])
        raise ConfigurationError(
            f"{len(long):,} {what} of {split}.tsv have more symbols than the {longest:,} that the expert takes "
            f"(ids {examples}): leave these lines out, or use another expert"
        )
