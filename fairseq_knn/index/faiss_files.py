"""Index files: whole or absent, and faiss's errors in one sentence."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import faiss

from fairseq_knn.errors import SearchIndexError
from fairseq_knn.storage.atomic import atomic_path

# Wherever the directory is now, and whether it may be written to or not.
_LISTS_BESIDE = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY


def write_index(index: faiss.Index, path: Path) -> str:
    """Write an index atomically.

    Returns:
        SHA-256 of the file.

    Raises:
        UserError: the disk is full or the place not writable.
    """
    digest = hashlib.sha256()
    # Not faiss.write_index(index, path): it does not notice a disk that fills up while the last
    # buffer is written.
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def write(block: bytes) -> int:
            digest.update(block)
            return file.write(block)

        faiss.write_index(index, faiss.PyCallbackIOWriter(write))
        file.flush()
    return digest.hexdigest()


def read_index(path: Path, *, mapped: bool = False) -> faiss.Index:
    """Read an index. Lists in a file of their own are looked for in the same directory and stay there, memory mapped.

    Args:
        path: its file.
        mapped: leave on disk, memory mapped, what faiss can search there; not for an index whose lists have a file of
            their own.

    Raises:
        SearchIndexError: the file is damaged, or this faiss cannot read it.
    """
    with explain_faiss_errors(
        f"read {path}",
        f"it is damaged or another version wrote it; build it again with `fairseq-knn build-index {path.parent}`",
    ):
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else _LISTS_BESIDE)


@contextlib.contextmanager
def explain_faiss_errors(task: str, remedy: str) -> Iterator[None]:
    """Turn what faiss refuses into one sentence.

    Raises:
        SearchIndexError: "faiss cannot *task* (its reason): *remedy*".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise SearchIndexError(f"faiss {faiss.__version__} cannot {task} ({reason(error)}): {remedy}") from error


def reason(error: BaseException) -> str:
    """faiss's message without its source positions: "Error in F at FILE:LINE: [Error: 'C' failed: ]M"."""
    text = " ".join(str(error).split()) or type(error).__name__
    if text.startswith("Error in "):
        text = text.partition(".cpp:")[2].partition(": ")[2] or text
    return text.rpartition(" failed: ")[2]
