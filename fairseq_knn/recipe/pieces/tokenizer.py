"""From text to pieces and back."""

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from fairseq.data import encoders
from omegaconf import OmegaConf

from fairseq_knn.storage.digest import file_digest


class PieceTokenizer(ABC):
    """Cuts a sentence into pieces by what fairseq calls a bpe, so that training, ``fairseq-interactive`` and
    ``hub.translate`` do it alike.

    It can be sent to other processes, each of which loads what it needs.

    Attributes:
        name: names directories of data that depends on it, such as ``sentencepiece-5000``.
        bpe: fairseq's settings of it, ``_name`` among them.
    """

    def __init__(self, name: str, bpe: dict[str, Any]) -> None:
        self.name, self.bpe = name, bpe
        self._encoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    @property
    def encoder(self) -> Any:
        """fairseq's object."""
        if self._encoder is None:
            self._encoder = encoders.build_bpe(OmegaConf.create(self.bpe))
        return self._encoder

    def encode(self, line: str) -> str:
        """The pieces of a sentence, with spaces between them."""
        return str(self.encoder.encode(line))

    def decode(self, pieces: str) -> str:
        """The sentence that pieces with spaces between them make up."""
        return str(self.encoder.decode(pieces))

    @abstractmethod
    def pieces(self) -> list[str] | None:
        """All pieces there are, in the order of their ids, without those that every fairseq dictionary has (unknown,
        beginning, end, padding); None if only a text can tell."""

    @abstractmethod
    def files(self) -> dict[str, Path]:
        """What has to be beside a checkpoint, by the name under which stock fairseq's hub interface looks for it."""

    def digest(self) -> str:
        """What pieces depend on: settings, and the content of the files they name."""
        settings = {
            name: file_digest(Path(value)) if is_file(value) else value for name, value in sorted(self.bpe.items())
        }
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def is_file(value: Any) -> bool:
    """Whether a setting names a file."""
    return isinstance(value, str) and Path(value).is_file()
