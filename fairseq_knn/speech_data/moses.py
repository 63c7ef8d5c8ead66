"""Text as Moses's scripts leave it: what translation models of WMT, fairseq's own among them, were trained on."""

import re
import unicodedata

from fairseq_knn.errors import ConfigurationError

_OTHER = re.compile(r"[^\x20-\x7e]")
# tokenizer.perl splits off the last dot even of abbreviations, since 2018; sacremoses does not
_LAST_DOT = re.compile(r"([^.\s])\.$")


class Moses:
    """Normalises (training data only, as it is custom) and tokenises sentences of one language.

    Normalisation: ``normalize-punctuation.perl -l LANGUAGE``, then ``remove-non-printing-char.perl``. Tokenisation:
    ``tokenizer.perl -a -l LANGUAGE``, which splits at hyphens (``@-@``) and escapes what HTML and Moses give a meaning.

    Attributes:
        knows_language: whether there are abbreviations of the language; English ones stand in.

    Raises:
        ConfigurationError: sacremoses is not installed.
    """

    def __init__(self, language: str, *, normalize: bool) -> None:
        try:
            from sacremoses import MosesPunctNormalizer, MosesTokenizer
            from sacremoses.tokenize import nonbreaking_prefixes
        except ImportError as error:
            raise ConfigurationError(
                "text is tokenised by sacremoses, which is not installed: pip install 'fairseq-knn[speech]'"
            ) from error
        self.knows_language = language in nonbreaking_prefixes.available_langs
        self._tokenizer = MosesTokenizer(lang=language)
        # The script's own replacements, where sacremoses prefers others.
        self._normalizer = MosesPunctNormalizer(lang=language, perl_parity=True) if normalize else None

    def __call__(self, text: str) -> str:
        """The tokens of *text*, with single spaces between them."""
        if self._normalizer is not None:
            text = _OTHER.sub(_printing, self._normalizer.normalize(text))
        tokens: str = self._tokenizer.tokenize(text, aggressive_dash_splits=True, return_str=True, escape=True)
        return _LAST_DOT.sub(r"\1 .", tokens)


def _printing(match: re.Match[str]) -> str:
    """A space in the place of what cannot be seen (control, format, unassigned and private characters)."""
    return " " if unicodedata.category(match[0]).startswith("C") else match[0]
