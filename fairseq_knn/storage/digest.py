"""SHA-256 digests of files, tensors and vocabularies."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

_BLOCK = 1 << 22


def file_digest(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """SHA-256 of a file.

    Args:
        path: the file.
        advance: called with the number of bytes after every block (for a progress bar).
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def parameters_digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Fingerprint of a model: SHA-256 over its parameters' names, shapes and float32 bytes.

    The order of the parameters, their device and the checkpoint's style do not matter. A model converted
    to half precision has another fingerprint, so take it before the conversion.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters, key=lambda item: item[0]):
        array = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def vocabulary_digest(symbols: Iterable[str]) -> str:
    """Fingerprint of a vocabulary: SHA-256 over its symbols in the order of their ids."""
    digest = hashlib.sha256()
    for symbol in symbols:
        digest.update(symbol.encode("utf-8") + b"\n")
    return digest.hexdigest()


def numbers_digest(size: int) -> str:
    """Fingerprint of a vocabulary of which only the number of ids is known: what they stand for a tokenizer knows."""
    return vocabulary_digest(str(number) for number in range(size))


def short(digest: str) -> str:
    """The first twelve digits: enough to tell two fingerprints apart in a message."""
    return digest[:12]
