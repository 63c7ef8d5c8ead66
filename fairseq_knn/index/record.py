"""``index.json``: what an index was built from, and what it was measured to do."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fairseq_knn.datastore import Datastore
from fairseq_knn.datastore.layout import index_lists_path, index_path, index_record_path
from fairseq_knn.errors import SearchIndexError, UserError
from fairseq_knn.storage.atomic import read_json, write_json
from fairseq_knn.storage.digest import file_digest, short

INDEX_SCHEMA = 1


@dataclass(frozen=True)
class IndexSettings:
    """Everything that decides the content of ``index.faiss`` and, beside it, ``index.ivfdata``.

    Args:
        factory: faiss factory string.
        entries: number of keys, N.
        dimension: of the keys, d.
        datastore: digest of the datastore.
        seed: of the training sample.
        train_size: number of keys the index was trained with; 0 if it needs no training.
        on_disk: whether its lists are in a file of their own, and candidates are ranked again by the stored keys.
        schema: version of this file's format.
    """

    factory: str
    entries: int
    dimension: int
    datastore: str
    seed: int
    train_size: int
    on_disk: bool = False
    schema: int = INDEX_SCHEMA


@dataclass(frozen=True)
class Written:
    """A file that is complete: its size and its SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexRecord:
    """A finished index.

    Args:
        settings: what it was built from.
        bytes, sha256: of ``index.faiss``.
        nprobe: lists searched when it was measured; ``None`` for an index without lists.
        k: neighbours asked for when it was measured.
        k_factor: candidates per neighbour that are re-ranked by exact distances, fewer for large k;
            ``None`` for an index without re-ranking.
        recall: share of the true k nearest keys that it finds.
        found: how many of the self-test's keys find themselves.
        faiss: version of faiss that built it.
        lists_bytes, lists_sha256: of ``index.ivfdata``; ``None`` where the lists are in ``index.faiss``.
    """

    settings: IndexSettings
    bytes: int
    sha256: str
    nprobe: int | None
    k: int
    k_factor: int | None
    recall: float
    found: int
    faiss: str
    lists_bytes: int | None = None
    lists_sha256: str | None = None

    @property
    def file(self) -> Written:
        """``index.faiss``."""
        return Written(self.bytes, self.sha256)

    @property
    def lists(self) -> Written | None:
        """``index.ivfdata``, if the lists are on disk."""
        if self.lists_bytes is None or self.lists_sha256 is None:
            return None
        return Written(self.lists_bytes, self.lists_sha256)

    @property
    def total_bytes(self) -> int:
        """Size of all files of the index."""
        return self.bytes + (self.lists_bytes or 0)

    def files(self, root: Path) -> Iterator[tuple[Path, Written]]:
        """The files of the index of the datastore in *root*."""
        yield index_path(root), self.file
        if self.lists is not None:
            yield index_lists_path(root), self.lists

    def save(self, datastore: Datastore) -> None:
        """Write ``index.json``; from then on the index counts as finished."""
        write_json(index_record_path(datastore.path), asdict(self))

    @classmethod
    def load(cls, datastore: Datastore) -> "IndexRecord":
        """Read ``index.json`` and compare it with its datastore and with the sizes of the files of the index.

        Raises:
            SearchIndexError: there is no finished index, it belongs to another state of the datastore,
                or a file does not have the recorded size.
        """
        remedy = _remedy(datastore)
        record = cls.read(datastore)
        found = record.settings
        if (found.datastore, found.entries, found.dimension) != (
            datastore.digest,
            datastore.entries,
            datastore.dimension,
        ):
            raise SearchIndexError(
                f"the search index of {datastore.path} is older than its datastore: it was built for "
                f"{found.entries:,} entries of dimension {found.dimension} "
                f"(digest {short(found.datastore)}), which now has {datastore.entries:,} of dimension "
                f"{datastore.dimension} (digest {short(datastore.digest)}); build it again with {remedy}"
            )
        for file, expected in record.files(datastore.path):
            size = file.stat().st_size if file.exists() else None
            if size != expected.bytes:
                state = "is missing" if size is None else f"has {size:,} bytes instead of {expected.bytes:,}"
                raise SearchIndexError(f"{file} {state}: restore it, or build it again with {remedy}")
        return record

    @classmethod
    def read(cls, datastore: Datastore) -> "IndexRecord":
        """Read ``index.json`` and compare it with nothing.

        Raises:
            SearchIndexError: there is no finished index, or the file is damaged.
        """
        source, remedy = index_record_path(datastore.path), _remedy(datastore)
        try:
            content = read_json(source)
        except FileNotFoundError:
            raise SearchIndexError(
                f"the datastore {datastore.path} has no search index: build one with {remedy}, or "
                "pass --knn-backend torch for exact search without one"
            ) from None
        except UserError as error:
            raise SearchIndexError(str(error)) from error
        try:
            schema = content["settings"]["schema"]
            if schema != INDEX_SCHEMA:
                raise SearchIndexError(
                    f"{source} has format version {schema}, this package reads version {INDEX_SCHEMA}: "
                    f"install the version of fairseq_knn that wrote it, or build the index again with {remedy}"
                )
            return cls(**{**content, "settings": IndexSettings(**content["settings"])})
        except (KeyError, TypeError) as error:
            raise SearchIndexError(
                f"{source} does not describe a search index ({error}): build it again with {remedy}"
            ) from error

    def verify(self, datastore: Datastore, advance: Callable[[int], object] = lambda _: None) -> None:
        """Compare the files of the index with their checksums.

        Args:
            datastore: whose index it is.
            advance: called with the number of bytes after every block.

        Raises:
            SearchIndexError: they differ.
        """
        for file, recorded in self.files(datastore.path):
            if (digest := file_digest(file, advance)) != recorded.sha256:
                raise SearchIndexError(
                    f"{file} is damaged: it has checksum {short(digest)} instead of {short(recorded.sha256)}; "
                    f"build it again with `fairseq-knn build-index {datastore.path}`"
                )


def _remedy(datastore: Datastore) -> str:
    return f"`fairseq-knn build-index {datastore.path}`"
