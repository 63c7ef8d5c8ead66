"""What a datastore says of itself: plan, shard records, manifest.

Nothing here differs between two equal runs: no times, no host names, no paths.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from fairseq_knn.datastore.layout import ARRAYS, OPTIONAL_ARRAYS, SCHEMA_VERSION
from fairseq_knn.errors import DatastoreError
from fairseq_knn.storage.digest import short

# What reading a field of JSON that is not what it should be may end in.
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)


TRANSLATION, LANGUAGE_MODEL = "translation", "language_model"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the content of a datastore; fixed before the first entry is written.

    Args:
        model: fingerprint of the base model's parameters.
        model_name: class of the base model, for messages.
        vocabulary: fingerprint of the target dictionary.
        vocabulary_size: number of its symbols.
        key: which hidden state is the key (``decoder_output``, ``ffn_input`` or ``ffn_output``).
        split: name of the data split, e.g. ``train``.
        data: fingerprint of the split (its sentence lengths).
        sentences: number of sentences of the split; of a language model, of blocks.
        shard_sentences: sentences per shard; shard ``i`` holds ``[i * S, (i + 1) * S)``.
        limits: longest source and target the model takes; longer sentences are left out. Of a language model, how its
            text was cut into blocks, too.
        kind: :data:`TRANSLATION` or :data:`LANGUAGE_MODEL`: what the model does.
        metric: distance of the keys; squared Euclidean distance (``l2``) is the only one.
        schema: version of the file format.
    """

    model: str
    model_name: str
    vocabulary: str
    vocabulary_size: int
    key: str
    split: str
    data: str
    sentences: int
    shard_sentences: int
    limits: str = ""
    kind: str = TRANSLATION
    metric: str = "l2"
    schema: int = SCHEMA_VERSION

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.sentences // self.shard_sentences)

    def sentence_range(self, shard: int) -> tuple[int, int]:
        """First and one past the last sentence of *shard*."""
        first = shard * self.shard_sentences
        return first, min(first + self.shard_sentences, self.sentences)

    @classmethod
    def from_json(cls, content: Any, source: str) -> "Plan":
        """Read a plan.

        Raises:
            DatastoreError: it has another format version, or is not a plan.
        """
        try:
            _check_schema(content["schema"], source)
            return cls(**content)
        except _MALFORMED as error:
            raise DatastoreError(
                f"{source} is not the plan of a datastore ({_told(error)}): delete the directory of the "
                "datastore and build it again"
            ) from error

    def difference(self, other: "Plan") -> str:
        """Name the first setting in which two plans differ, with both values; empty when equal."""
        for name, value in asdict(self).items():
            theirs = getattr(other, name)
            if value != theirs:
                return f"{name} {_shorten(value)} against {_shorten(theirs)}"
        return ""


@dataclass(frozen=True)
class ArrayRecord:
    """Size in bytes and SHA-256 of one array file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardRecord:
    """One committed shard.

    Args:
        entries: number of entries; a shard without entries has no array files.
        dimension: of its keys (0 for a shard without entries).
        sentences: number of sentences stored.
        skipped: sentences of the range that were left out because the model cannot take their length.
        value_dtype: ``int32``, or ``int64`` for vocabularies beyond 2^31.
        arrays: one record per array file.
    """

    entries: int
    dimension: int
    sentences: int
    skipped: int
    value_dtype: str
    arrays: dict[str, ArrayRecord] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Any, source: str) -> "ShardRecord":
        """Read the record of a shard.

        Raises:
            DatastoreError: it is not one.
        """
        try:
            arrays = {name: ArrayRecord(**record) for name, record in content["arrays"].items()}
            return cls(**{**content, "arrays": arrays})
        except _MALFORMED as error:
            raise DatastoreError(
                f"{source} is not the record of a shard ({_told(error)}): build the datastore again"
            ) from error


def array_names(shards: Collection[ShardRecord]) -> list[str]:
    """Arrays of a datastore of these shards: all there are, but for the optional ones that none of them has."""
    return [name for name in ARRAYS if name not in OPTIONAL_ARRAYS or any(name in shard.arrays for shard in shards)]


@dataclass(frozen=True)
class Manifest:
    """A finished datastore: its plan, its totals and its shards in order."""

    plan: Plan
    entries: int
    dimension: int
    key_dtype: str
    value_dtype: str
    skipped: int
    shards: tuple[ShardRecord, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any, source: str) -> "Manifest":
        """Read a manifest.

        Raises:
            DatastoreError: it has another format version, or is not a manifest.
        """
        try:
            plan = Plan.from_json(content["plan"], source)
            shards = tuple(ShardRecord.from_json(shard, source) for shard in content["shards"])
            return cls(**{**content, "plan": plan, "shards": shards})
        except _MALFORMED as error:
            raise DatastoreError(
                f"{source} is not the manifest of a datastore ({_told(error)}): build the datastore again"
            ) from error


def _check_schema(schema: Any, source: str) -> None:
    if schema != SCHEMA_VERSION:
        raise DatastoreError(
            f"{source} has format version {schema}, this package reads version {SCHEMA_VERSION}: install "
            "the version of fairseq_knn that wrote it or build it again"
        )


def _told(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _shorten(value: Any) -> Any:
    return short(value) if isinstance(value, str) and len(value) == 64 else value
