"""From the settings of a tokenizer to the tokenizer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.fairseq_tokenizer import FairseqTokenizer
from fairseq_knn.recipe.pieces.sentencepiece_tokenizer import NAME, sentencepiece_tokenizer
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer
from fairseq_knn.recipe.settings import Tokenizer


def make_tokenizer(
    settings: Tokenizer,
    extra: Mapping[str, Any],
    texts: Sequence[Path],
    path: Path,
    say: Callable[[str], object],
) -> PieceTokenizer:
    """
    Args:
        settings: of the step.
        extra: settings that the component has beyond them.
        texts: both sides of the training pairs.
        path: of the model, for those that are trained.
        say: called with lines about what is made.

    Raises:
        ConfigurationError: settings are unknown or do not go together, or what is there is not as asked for.
        UserError: the place cannot be written.
    """
    if settings._name != NAME:
        return FairseqTokenizer(settings, extra)
    if extra:
        raise ConfigurationError(
            f"tokenizer={NAME} has no setting {next(iter(extra))!r}: it has vocab_size, model_type, character_coverage "
            "and path"
        )
    return sentencepiece_tokenizer(settings, texts, path, say)
