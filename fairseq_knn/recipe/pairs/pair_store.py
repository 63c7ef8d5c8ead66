"""Pairs on disk, and of each only what decides where it goes in memory."""

import hashlib
import mmap
import os
from array import array
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_knn.corpora.cleaning import comparison_key
from fairseq_knn.recipe.pairs.splitting import Indices, Keys

_BAR_FROM_PAIRS = 200_000


class PairStore:
    """Collects pairs, then writes any of them in any order. 32 bytes each stay in memory.

    Hashes of 64 bits stand for sentences. Equal sentences always have equal ones; different sentences that share one
    by chance (expected once in thousands of files of a million pairs) would stay together, or one of two pairs be lost.

    Args:
        path: file that is made.
        seed: other seeds draw other numbers.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._file = path.open("wb")
        self._key = str(seed).encode()[: hashlib.blake2b.MAX_KEY_SIZE]
        self._starts = array("q", [0])
        self._source, self._target, self._draws = array("Q"), array("Q"), array("Q")

    def add(self, source: str, target: str) -> None:
        """
        Args:
            source, target: tidy, so there is no tab or end of line in them.
        """
        line = f"{source}\t{target}\n".encode()
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))
        self._source.append(_sentence_hash(source))
        self._target.append(_sentence_hash(target))
        self._draws.append(_hash(line, self._key))

    def __len__(self) -> int:
        return len(self._draws)

    def distinct(self) -> Indices:
        """Indices of the pairs, of equal ones the first, in the order of their draws: a seeded permutation."""
        return np.unique(self.draws, return_index=True)[1]

    @property
    def source(self) -> Keys:
        """What stands for each source sentence, whatever its case, punctuation and spaces."""
        return np.array(self._source, dtype=np.uint64)

    @property
    def target(self) -> Keys:
        """The same for target sentences."""
        return np.array(self._target, dtype=np.uint64)

    @property
    def draws(self) -> Keys:
        """Of each pair, from the seed and its text."""
        return np.array(self._draws, dtype=np.uint64)

    def write(self, indices: Indices, source: Path, target: Path) -> None:
        """Write pairs into two files, a sentence a line, and the files to the disk."""
        self._file.flush()
        disable = None if len(indices) >= _BAR_FROM_PAIRS else True
        with source.open("wb") as left, target.open("wb") as right, self._path.open("rb") as file:
            if len(indices):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    for index in tqdm(
                        indices.tolist(), desc=source.stem, unit=" pairs", leave=False, disable=disable, mininterval=1
                    ):
                        line = content[self._starts[index] : self._starts[index + 1]]
                        one, _, other = line.partition(b"\t")
                        left.write(one + b"\n")
                        right.write(other)
            for written in (left, right):
                written.flush()
                os.fsync(written.fileno())

    def remove(self) -> None:
        """Delete the file."""
        self._file.close()
        self._path.unlink()


def _sentence_hash(text: str) -> int:
    # "?!" and "..." have no letters, and are not one sentence for that.
    return _hash((comparison_key(text) or text).encode())


def _hash(content: bytes, key: bytes = b"") -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")
