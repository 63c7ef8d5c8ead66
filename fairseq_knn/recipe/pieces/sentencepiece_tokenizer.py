"""A sentencepiece model, trained on both sides of the training pairs."""

import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.plain_text import examined
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer
from fairseq_knn.recipe.settings import Tokenizer
from fairseq_knn.storage.atomic import atomic_path, make_directory, read_json, write_json

NAME = "sentencepiece"
MODEL_TYPES = ("unigram", "bpe")
# Sums, and so the model, depend on it; the machine's number of cores is to make no difference.
_THREADS = 4
# sentencepiece's highest, in bytes. By default it leaves out lines above 4192.
_LONGEST_LINE = 1 << 30
# sentencepiece leaves out lines with this character, which it uses itself.
_RESERVED = "\N{LOWER FIVE EIGHTHS BLOCK}"
_LIMIT = re.compile(r"<= (\d+)")
_REQUIRED = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


class SentencePieceTokenizer(PieceTokenizer):
    """
    Args:
        path: of the model.

    Attributes:
        size: pieces of the model, with those that every fairseq dictionary has.

    Raises:
        ConfigurationError: the file is no sentencepiece model.
    """

    def __init__(self, path: Path) -> None:
        model = _load(path)
        self.path, self.size = path, int(model.GetPieceSize())
        # <s>, </s>, <unk> and <pad> are fairseq's own, and pieces that are not in use never come up.
        special = set(Dictionary().symbols)
        self._pieces = [
            piece
            for number in range(self.size)
            if not (model.IsControl(number) or model.IsUnknown(number) or model.IsUnused(number))
            and (piece := model.IdToPiece(number)) not in special
        ]
        super().__init__(f"{NAME}-{model.GetPieceSize()}", {"_name": NAME, "sentencepiece_model": str(path.absolute())})
        self.path = path

    def pieces(self) -> list[str]:
        return self._pieces

    def files(self) -> dict[str, Path]:
        return {"sentencepiece.bpe.model": self.path}


def sentencepiece_tokenizer(
    settings: Tokenizer, texts: Sequence[Path], path: Path, say: Callable[[str], object]
) -> SentencePieceTokenizer:
    """The model at *path*, trained if there is none.

    It is trained on every line of the texts. These are to be both sides of the training pairs, not of those that are
    held out: a vocabulary that has seen the test set makes its figures too good. Equal text gives an equal model.
    Beside it are its pieces (``.vocab``), and what it was trained on (``.json``).

    Raises:
        ConfigurationError: a setting is out of its range, the text is too little for so many pieces, or the model that
            is there is none, or not as asked for.
        UserError: the place cannot be written.
    """
    _check(settings)
    trained_on = {
        "model_type": settings.model_type,
        "character_coverage": settings.character_coverage,
        "texts": [examined(text)[0] for text in texts],
    }
    if path.exists():
        return _reused(path, settings, trained_on, say)
    make_directory(path.parent)
    say(f"training a sentencepiece model of {settings.vocab_size:,} pieces on {' and '.join(t.name for t in texts)}")
    content = _train(settings, texts)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        model = _load(temporary)
        with atomic_path(_beside(path, ".vocab")) as vocabulary, vocabulary.open("w", encoding="utf-8") as file:
            for number in range(model.GetPieceSize()):
                file.write(f"{model.IdToPiece(number)}\t{model.GetScore(number):g}\n")
        write_json(_beside(path, ".json"), trained_on)
    say(f"{path}: trained")
    return SentencePieceTokenizer(path)


def _check(settings: Tokenizer) -> None:
    if settings.model_type not in MODEL_TYPES:
        raise ConfigurationError(f"tokenizer.model_type is {settings.model_type!r}: choose {' or '.join(MODEL_TYPES)}")
    if settings.vocab_size < 4:
        raise ConfigurationError(
            f"tokenizer.vocab_size is {settings.vocab_size}: set it to some thousands; three pieces stand for unknown "
            "ones, beginnings and ends"
        )
    if not 0.9 <= settings.character_coverage <= 1:
        raise ConfigurationError(
            f"tokenizer.character_coverage is {settings.character_coverage}, but has to be from 0.9 to 1"
        )


def _reused(
    path: Path, settings: Tokenizer, trained_on: Mapping[str, Any], say: Callable[[str], object]
) -> SentencePieceTokenizer:
    tokenizer = SentencePieceTokenizer(path)
    if tokenizer.size != settings.vocab_size:
        raise ConfigurationError(
            f"{path} has {tokenizer.size} pieces, and tokenizer.vocab_size is {settings.vocab_size}: set "
            f"tokenizer.vocab_size={tokenizer.size} to use it, or name another tokenizer.path"
        )
    # A model that somebody else has trained has no record.
    beside = _beside(path, ".json")
    record = read_json(beside) if beside.exists() else {}
    known = {name: value for name, value in trained_on.items() if isinstance(record, dict) and name in record}
    for name in known:
        if name != "texts" and record[name] != known[name]:
            raise ConfigurationError(
                f"{path} was trained with tokenizer.{name}={record[name]}, and {known[name]} is asked for: set that, "
                "or name another tokenizer.path"
            )
    other = "texts" in known and record["texts"] != known["texts"]
    say(f"{path} is there already: reused" + (", though it was trained on other text" if other else ""))
    return tokenizer


def _train(settings: Tokenizer, texts: Sequence[Path]) -> bytes:
    from sentencepiece import SentencePieceTrainer

    content = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=itertools.chain.from_iterable(map(_lines, texts)),
            model_writer=content,
            vocab_size=settings.vocab_size,
            model_type=settings.model_type,
            character_coverage=settings.character_coverage,
            hard_vocab_limit=True,
            input_sentence_size=0,  # all
            max_sentence_length=_LONGEST_LINE,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        given = f"tokenizer.vocab_size is {settings.vocab_size}"
        if limit := _LIMIT.search(str(error)):
            raise ConfigurationError(
                f"{given}, but so little text gives {limit[1]} pieces at most: set tokenizer.vocab_size={limit[1]} or "
                "less"
            ) from error
        if required := _REQUIRED.search(str(error)):
            raise ConfigurationError(
                f"{given}, but the text has so many characters that {required[1]} pieces are the least: set "
                f"tokenizer.vocab_size={required[1]} or more, or tokenizer.character_coverage below 1"
            ) from error
        raise ConfigurationError(
            f"sentencepiece cannot be trained on {' and '.join(map(str, texts))} ({error}): look into these files"
        ) from error
    return content.getvalue()


def _lines(text: Path) -> Iterator[str]:
    with text.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.strip().replace(_RESERVED, " ")


def _load(path: Path) -> Any:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(path.read_bytes())
    except (RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a sentencepiece model: delete it to have one trained, or name another "
            "tokenizer.path"
        ) from error
    return model


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.removesuffix(".model") + suffix)
