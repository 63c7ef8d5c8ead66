"""Any other tokenizer that fairseq knows as a bpe: characters, bytes, the codes of a model that is there already."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from fairseq.data.encoders import BPE_REGISTRY
from fairseq.registry import REGISTRIES

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pieces.tokenizer import PieceTokenizer, is_file
from fairseq_knn.recipe.settings import Tokenizer

# Where stock fairseq's hub interface looks for the files that settings name.
_BESIDE_A_CHECKPOINT = {
    "bpe_codes": "bpecodes",
    "sentencepiece_model": "sentencepiece.bpe.model",
    "bpe_merges": "merges.txt",
    "bpe_vocab": "vocab.json",
}


class FairseqTokenizer(PieceTokenizer):
    """A registered bpe. Its vocabulary is what it makes of the training text.

    Args:
        settings: of a tokenizer that is not sentencepiece.
        extra: settings of its own, by the names in its dataclass.

    Raises:
        ConfigurationError: fairseq knows none of the name, a setting is unknown to it or lacking, or it cannot be
            loaded.
    """

    def __init__(self, settings: Tokenizer, extra: Mapping[str, Any]) -> None:
        name = settings._name
        if name not in BPE_REGISTRY:
            raise ConfigurationError(
                f"tokenizer={name} is no bpe of fairseq's or yours: choose one of {', '.join(sorted(BPE_REGISTRY))}"
            )
        for own in fields(Tokenizer):
            if own.name != "_name" and getattr(settings, own.name) != own.default:
                raise ConfigurationError(
                    f"tokenizer.{own.name} is a setting of sentencepiece, and tokenizer={name} takes none of the kind: "
                    "leave it out, or choose tokenizer=sentencepiece"
                )
        values = {**_defaults(name), **extra}
        _check(name, extra, values)
        super().__init__(
            name,
            {
                "_name": name,
                **{key: str(Path(value).absolute()) if is_file(value) else value for key, value in values.items()},
            },
        )
        try:
            self.encode("a")
        except Exception as error:
            raise ConfigurationError(
                f"tokenizer={name} cannot be used ({' '.join(str(error).split())}): mend its settings, or choose "
                "another"
            ) from error

    def pieces(self) -> None:
        return None

    def files(self) -> dict[str, Path]:
        return {
            _BESIDE_A_CHECKPOINT.get(key, Path(value).name): Path(value)
            for key, value in self.bpe.items()
            if is_file(value)
        }


def _defaults(name: str) -> dict[str, Any]:
    """Settings of a bpe, with their defaults, from its dataclass if it has one."""
    config = REGISTRIES["bpe"]["dataclass_registry"].get(name)
    if config is None:
        return {}
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(config)
        if field.name != "_name"
    }


def _check(name: str, extra: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    known = _defaults(name)
    for key in extra:
        if key not in known:
            raise ConfigurationError(
                f"tokenizer={name} has no setting {key!r}: it has {', '.join(sorted(known)) or 'none of its own'}"
            )
    for key, value in values.items():
        if value == "???":
            raise ConfigurationError(f"tokenizer={name} needs tokenizer.{key}: give it")
