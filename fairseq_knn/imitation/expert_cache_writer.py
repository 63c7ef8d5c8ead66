"""Writing what an expert expects, sentence by sentence; an interrupted run goes on where it was.

Until it is finished, a cache is a hidden directory beside its place, which has the arrays at their full size and a note
of the sentences that are in them.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.imitation.expert_cache import MANIFEST, OFFSETS, PROBABILITIES, TOKENS, check_made_for, made_for
from fairseq_knn.storage.atomic import (
    atomic_path,
    explain_os_errors,
    make_directory,
    read_json,
    remove_partials,
    sync_directory,
    write_json,
)
from fairseq_knn.storage.digest import file_digest

_PLAN, _WRITTEN = "plan.json", "written.npy"
_DTYPES: dict[str, np.dtype[Any]] = {TOKENS: np.dtype(np.int32), PROBABILITIES: np.dtype(np.float32)}


class ExpertCacheWriter:
    """Fills a cache and, when it is whole, gives it its name. One process writes; it holds a lock.

    Args:
        directory: of the split; absent or empty.
        description: what the content depends on, as JSON; a cache that was begun with another is refused.
        positions: of the reference of each sentence of the split; a sentence with none is not written.
        k: tokens that are kept at each position.

    Raises:
        ConfigurationError: the directory is in use, or something else was begun there.
        UserError: it cannot be written, or another process is writing it.
    """

    def __init__(self, directory: Path, description: Mapping[str, Any], positions: Sequence[int], k: int) -> None:
        self.directory = directory
        self._unfinished = directory.with_name(f".{directory.name}.unfinished")
        self._made, self._k = made_for(description), k
        self._offsets = np.concatenate([[0], np.cumsum(positions, dtype=np.int64)]).astype(np.int64)
        self._files: dict[str, int] = {}
        make_directory(self._unfinished)
        self._open = contextlib.ExitStack()
        try:
            self._take_lock()
            self._refuse_to_replace()
            self._begin()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        with explain_os_errors(self._unfinished):
            lock = self._opened(self._unfinished, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is making the cache {self.directory}: wait until it is finished, or name another "
                "directory with --kd-cache"
            ) from error
        except OSError:
            pass  # some network file systems have no locks

    def _opened(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags)
        self._open.callback(os.close, descriptor)
        return descriptor

    def _refuse_to_replace(self) -> None:
        if self.directory.exists() and not (self.directory.is_dir() and not any(self.directory.iterdir())):
            with contextlib.suppress(OSError):  # something is in it
                self._unfinished.rmdir()
            raise ConfigurationError(
                f"{self.directory} is there already, so no cache of an expert can be made in its place: name another "
                "directory with --kd-cache, or delete this one"
            )

    def _begin(self) -> None:
        """Open the files of an earlier run, or lay them out; then the plan comes last, and they count."""
        plan = {**self._made, "k": self._k, "positions": hashlib.sha256(self._offsets.tobytes()).hexdigest()}
        try:
            check_made_for(self._unfinished, read_json(self._unfinished / _PLAN), plan)
            resumed = True
        except FileNotFoundError:
            resumed = False
        remove_partials(self._unfinished / _WRITTEN)
        for name, dtype in _DTYPES.items():
            with explain_os_errors(self._unfinished / name):
                if not resumed:
                    shape = (int(self._offsets[-1]), self._k)
                    np.lib.format.open_memmap(self._unfinished / name, "w+", dtype, shape)
                self._files[name] = self._opened(self._unfinished / name, os.O_WRONLY)
        if resumed:
            self._written: NDArray[np.bool_] = np.load(self._unfinished / _WRITTEN)
        else:
            self._written = np.diff(self._offsets) == 0
            self.flush()
            write_json(self._unfinished / _PLAN, plan)

    @property
    def missing(self) -> list[int]:
        """Numbers of the sentences that have not been written."""
        numbers: list[int] = np.flatnonzero(~self._written).tolist()
        return numbers

    def put(self, sentence: int, tokens: Tensor, probabilities: Tensor) -> None:
        """Write what the expert expects at the positions of a sentence.

        Args:
            sentence: its number in the split.
            tokens: likeliest first, int64 (t, k).
            probabilities: of these tokens, summing to 1, float (t, k).

        Raises:
            UserError: the probabilities are not numbers, or the disk is full.
            ValueError: the sentence has another number of positions.
        """
        shape = (int(self._offsets[sentence + 1] - self._offsets[sentence]), self._k)
        if tokens.shape != shape or probabilities.shape != shape:
            raise ValueError(
                f"sentence {sentence} takes {shape}, not {tuple(tokens.shape)} and {tuple(probabilities.shape)}"
            )
        if not probabilities.isfinite().all():
            raise UserError(
                f"the expert gives probabilities that are NaN for sentence {sentence}: check its checkpoint, or run "
                "without --fp16"
            )
        for name, values in ((TOKENS, tokens), (PROBABILITIES, probabilities)):
            self._write(name, int(self._offsets[sentence]), values.detach().cpu().numpy().astype(_DTYPES[name]))
        self._written[sentence] = True

    def _write(self, name: str, row: int, values: NDArray[Any]) -> None:
        file = self._files[name]
        block = memoryview(values.tobytes())
        # The rows are the end of the file; what is before them is the header.
        place = os.fstat(file).st_size - (int(self._offsets[-1]) - row) * self._k * values.itemsize
        with explain_os_errors(self._unfinished / name):
            while block:
                count = os.pwrite(file, block, place)
                block, place = block[count:], place + count

    def flush(self) -> None:
        """Bring what was written to the disk: a later run does not ask for it again.

        Raises:
            UserError: the disk is full.
        """
        with explain_os_errors(self._unfinished):
            for file in self._files.values():
                os.fsync(file)
        with atomic_path(self._unfinished / _WRITTEN) as temporary, temporary.open("wb") as opened:
            np.save(opened, self._written)

    def finish(self) -> None:
        """Give the whole cache its name.

        Raises:
            UserError: the disk is full.
            ValueError: sentences are missing.
        """
        if missing := self.missing:
            raise ValueError(f"{len(missing)} sentences are missing, {missing[0]} the first")
        self.flush()
        with atomic_path(self._unfinished / OFFSETS) as temporary, temporary.open("wb") as opened:
            np.save(opened, self._offsets)
        files = {}
        for name in (OFFSETS, *_DTYPES):
            path = self._unfinished / name
            files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        totals = {"k": self._k, "sentences": len(self._written), "positions": int(self._offsets[-1])}
        write_json(self._unfinished / MANIFEST, {"made": self._made, **totals, "files": files})
        with explain_os_errors(self.directory):
            self._unfinished.rename(self.directory)
            sync_directory(self.directory.parent)
            for name in (_PLAN, _WRITTEN):
                (self.directory / name).unlink()
        self.close()

    def close(self) -> None:
        """Let go of files and lock, once or twice; what was not flushed is missing in a later run."""
        self._open.close()
