"""fairseq's dictionary of what a tokenizer makes."""

from dataclasses import dataclass
from pathlib import Path

from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer


@dataclass(frozen=True)
class Pieces:
    """The pieces of a line, in whatever process; the line as ``fairseq-interactive`` would see it."""

    tokenizer: PieceTokenizer

    def __call__(self, line: str) -> list[str]:
        return self.tokenizer.encode(line.strip()).split()


def piece_dictionary(tokenizer: PieceTokenizer, texts: tuple[Path, Path]) -> Dictionary:
    """A tokenizer's pieces in their order or, if only text can tell, those of two texts, the most frequent first."""
    dictionary = Dictionary()
    pieces = tokenizer.pieces()
    if pieces is None:
        for text in texts:
            Dictionary.add_file_to_dictionary(str(text), dictionary, Pieces(tokenizer), num_workers=1)
        dictionary.finalize(padding_factor=1)  # without symbols that no text has
    else:
        for piece in pieces:
            dictionary.add_symbol(piece)
    return dictionary


def save_dictionary(dictionary: Dictionary, path: Path) -> None:
    """
    Raises:
        ConfigurationError: what is read from the file would be another one.
    """
    dictionary.save(str(path))
    try:
        same = Dictionary.load(str(path)).symbols == dictionary.symbols
    except (RuntimeError, ValueError):
        same = False
    if not same:
        raise ConfigurationError(
            "the tokenizer has pieces that a fairseq dictionary cannot hold, with white space inside or twice the "
            "same: use another tokenizer"
        )
