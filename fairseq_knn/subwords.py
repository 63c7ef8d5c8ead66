"""Cutting text into the subwords of a translation model: merges of subword-nmt or fastBPE, or a sentencepiece model.

fastBPE's codes are those of subword-nmt 0.2 with a count behind every merge: the end-of-word mark is part of a
word's last character, the first learned of the possible merges is applied everywhere from the left, and a subword that
the vocabulary lacks is taken apart by undoing its merges. So subword-nmt, which is pure Python, applies them.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError

_KINDS = "codes of subword-nmt, codes of fastBPE and sentencepiece models"
# A sentencepiece model is a protocol buffer whose first field, a piece, has this tag. Codes have no empty first line.
_SENTENCEPIECE_TAG = b"\n"
_VERSION = "#version:"
_VERSIONS = {"0.1", "0.2"}


@dataclass(frozen=True)
class Subwords:
    """A way of cutting text.

    Attributes:
        kind: ``"subword-nmt"``, ``"fastbpe"`` or ``"sentencepiece"``.
        encode: text -> its subwords, with single spaces between them. Not idempotent: what is cut already is cut
            again, its marks (``@@``, ``▁``) included.
    """

    kind: str
    encode: Callable[[str], str]

    @property
    def mark(self) -> str:
        """What subwords have that words do not: at the end of all but a word's last, or at the start of its first."""
        return "▁" if self.kind == "sentencepiece" else "@@"


@dataclass(frozen=True)
class Codes:
    """Merges, the first learned first, for words of which ``version`` says how they end.

    Attributes:
        version: "0.1": the end of a word is a symbol of its own; "0.2": it belongs to the last character.
    """

    kind: str
    version: str
    merges: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """The content of a file that subword-nmt reads, and stock fairseq's ``subword_nmt`` with it."""
        return "".join([f"{_VERSION} {self.version}\n", *(f"{left} {right}\n" for left, right in self.merges)])


def load_subwords(path: Path, vocabulary: Path | None = None) -> Subwords:
    """Read codes or a model; the content tells which.

    Args:
        path: the file.
        vocabulary: a fairseq dictionary. Merges that lead to subwords it lacks are undone, as fastBPE and subword-nmt
            do it; sentencepiece models cut the same with and without, as under stock fairseq.

    Raises:
        ConfigurationError: a file cannot be read or is none of these, or the package that applies it is missing.
    """
    if is_sentencepiece(path):
        return Subwords("sentencepiece", _sentencepiece(path))
    codes = read_codes(path)
    return Subwords(codes.kind, _merging(codes, None if vocabulary is None else read_symbols(vocabulary)))


def is_sentencepiece(path: Path) -> bool:
    """Whether a file is a sentencepiece model rather than codes.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return _read(path).startswith(_SENTENCEPIECE_TAG)


def read_codes(path: Path) -> Codes:
    """Read merges of subword-nmt or fastBPE.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    text = _decoded(path)
    lines = [line.strip("\r ").split(" ") for line in text.rstrip("\r\n ").split("\n")]
    version, first = "0.1", 1
    if text.startswith(_VERSION):
        version, first = text.split("\n", 1)[0].split()[-1], 2
        lines = lines[1:]
        if version not in _VERSIONS:
            raise ConfigurationError(
                f"{path} holds codes of version {version}, but only {' and '.join(sorted(_VERSIONS))} are known: learn "
                "them again with subword-nmt"
            )
    # A count behind the merge: fastBPE's
    columns = 3 if first == 1 and lines and len(lines[0]) == 3 else 2
    for number, line in enumerate(lines, first):
        if len(line) != columns or not all(line) or (columns == 3 and not line[2].isdecimal()):
            raise ConfigurationError(
                f"{path} is none of what subwords are read from ({_KINDS}): line {number} is {' '.join(line)[:80]!r}; "
                "name the file with the model's own codes"
            )
    kind, version = ("fastbpe", "0.2") if columns == 3 else ("subword-nmt", version)
    return Codes(kind, version, tuple((line[0], line[1]) for line in lines))


def read_symbols(path: Path) -> frozenset[str]:
    """The symbols of a fairseq dictionary, without those that every dictionary has.

    Raises:
        ConfigurationError: the file cannot be read, or is no dictionary.
    """
    symbols = []
    for number, line in enumerate(_decoded(path).rstrip("\n").split("\n"), 1):
        symbol, _, count = line.rstrip().removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not symbol or not count.lstrip("-").isdecimal():
            raise ConfigurationError(
                f"{path} is no fairseq dictionary: line {number} is {line[:80]!r}, not a symbol and its count; name "
                "the model's dict.*.txt"
            )
        symbols.append(symbol)
    return frozenset(symbols)


def _merging(codes: Codes, vocabulary: frozenset[str] | None) -> Callable[[str], str]:
    try:
        from subword_nmt.apply_bpe import BPE
    except ImportError as error:
        raise ConfigurationError(
            "codes are applied by subword-nmt, which is not installed: pip install 'fairseq-knn[speech]'"
        ) from error
    bpe = BPE(io.StringIO(codes.text()), vocab=vocabulary)

    def encode(text: str) -> str:
        # At all white space, where fairseq's dictionaries split too: what is between two spaces is one symbol.
        return " ".join(bpe.segment_tokens(text.split()))

    return encode


def _sentencepiece(path: Path) -> Callable[[str], str]:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(_read(path))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{path} begins like a sentencepiece model, but cannot be read as one: restore it ({_KINDS} are read)"
        ) from error

    def encode(text: str) -> str:
        return " ".join(model.EncodeAsPieces(text))

    return encode


def _decoded(path: Path) -> str:
    try:
        return _read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no UTF-8 text ({error.reason}), nor a sentencepiece model") from error


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a file that you may read") from error
    if not content.strip():
        raise ConfigurationError(f"{path} is empty: name another file, or restore it")
    return content
