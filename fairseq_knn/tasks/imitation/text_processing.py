"""How the data's YAML has texts tokenised and divided into subwords, and undone again."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq.data import encoders
from fairseq.data.audio.speech_to_text_joint_dataset import S2TJointDataConfig

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.subwords import load_subwords


def read_config(path: Path) -> S2TJointDataConfig:
    """Stock's reader of the YAML.

    Raises:
        ConfigurationError: there is none, or it is none.
    """
    try:
        config = S2TJointDataConfig(path)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} does not exist, which names the data's dictionaries and subwords: name it with --config-yaml, or "
            "write one (`fairseq-knn st-data config`)"
        ) from error
    except Exception as error:
        reason = error.__context__ or error  # stock raises a bare Exception of its own
        raise ConfigurationError(f"{path} is no YAML ({' '.join(str(reason).split())[:200]}): correct it") from error
    if not isinstance(config.config, dict):
        raise ConfigurationError(f"{path} has no settings in it: write some (`fairseq-knn st-data config` does)")
    return config


class Encoders:
    """A tokeniser and subwords, each an encoder of fairseq's or ``None``."""

    def __init__(self, tokenizer: Any, subwords: Any) -> None:
        self.tokenizer, self.subwords = tokenizer, subwords

    def divide(self, text: str) -> str:
        """Symbols of a text, with spaces between them."""
        for encoder in (self.tokenizer, self.subwords):
            text = text if encoder is None else encoder.encode(text)
        return text

    def restore(self, symbols: str) -> str:
        """The text of symbols, on one line."""
        for encoder in (self.subwords, self.tokenizer):
            symbols = symbols if encoder is None else encoder.decode(symbols)
        return symbols


def source_side(config: S2TJointDataConfig) -> Encoders:
    """``src_pre_tokenizer`` and ``src_bpe_tokenizer``."""
    absolute = config._auto_convert_to_abs_path  # stock does it for the target side alone
    return _encoders(absolute(config.src_pre_tokenizer), absolute(config.src_bpe_tokenizer))


def target_side(config: S2TJointDataConfig) -> Encoders:
    """``pre_tokenizer`` and ``bpe_tokenizer``."""
    return _encoders(config.pre_tokenizer, config.bpe_tokenizer)


def expert_side(config: S2TJointDataConfig, codes: str | None, vocabulary: Path) -> Callable[[str], str]:
    """What makes the expert's source symbols of a text.

    Args:
        config: the data's, whose source side is the expert's if there are no codes.
        codes: file with the expert's, or ``None``.
        vocabulary: file with the dictionary of the expert's source.
    """
    return source_side(config).divide if codes is None else load_subwords(Path(codes), vocabulary).encode


def _encoders(tokenizer: dict[str, Any], subwords: dict[str, Any]) -> Encoders:
    return Encoders(encoders.build_tokenizer(Namespace(**tokenizer)), encoders.build_bpe(Namespace(**subwords)))


class TwoSided:
    """An encoder as fairseq-generate and fairseq-interactive use it: they encode sources and decode targets.

    Args:
        source: encodes, or ``None``.
        target: decodes, or ``None``.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target

    def encode(self, text: str) -> str:
        return text if self._source is None else str(self._source.encode(text))

    def decode(self, text: str) -> str:
        return text if self._target is None else str(self._target.decode(text))
