"""A voice that reads sentences: espeak-ng, as the wheel ``espeakng-loader`` brings it, an optional dependency."""

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_knn.errors import UserError

# espeak-ng's own numbers: hand samples over and return when all are there; text in UTF-8; no error; what is set.
_SYNCHRONOUS, _UTF8, _OK, _RATE = 2, 1, 0, 1
_ON_SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """Reads text aloud.

    Its intonation wavers as if by chance, and depends on all that was read in its process before: processes that read
    the same sentences in the same order hear the same samples. One voice can speak in a process at a time.

    Args:
        name: of the voice, a language's code.
        words_per_minute: how fast it reads; espeak-ng's own default is 175.

    Attributes:
        rate: samples a second.

    Raises:
        UserError: espeakng-loader is not installed, or has no such voice.
    """

    def __init__(self, name: str, words_per_minute: int) -> None:
        loader = _loader()
        self._library = ctypes.CDLL(loader.get_library_path())
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, loader.get_data_path().encode(), 0)
        self._heard: list[NDArray[np.int16]] = []
        self._callback = _ON_SAMPLES(self._hear)
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(name.encode()) != _OK:
            self.close()
            raise UserError(f"espeak-ng has no voice {name!r}: install espeakng-loader again")
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)

    def say(self, text: str) -> NDArray[np.int16]:
        """The samples of a sentence, shape (samples,)."""
        self._heard.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._heard) if self._heard else np.zeros(0, np.int16)

    def close(self) -> None:
        """Let another voice begin."""
        self._library.espeak_Terminate()

    def _hear(self, samples: Any, count: int, events: int | None) -> int:
        del events
        if samples and count > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def _loader() -> ModuleType:
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "this corpus is read aloud by espeak-ng, which is not installed: pip install espeakng-loader soundfile "
            "(or fairseq-knn with its extra: fairseq-knn[demo])"
        ) from error
    module: ModuleType = espeakng_loader
    return module
