"""Which ids two files have in common, and what becomes of the others."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError


@dataclass(frozen=True)
class Join:
    """How many ids two files have, alone and in common."""

    left: int
    right: int
    matched: int

    @property
    def left_only(self) -> int:
        return self.left - self.matched

    @property
    def right_only(self) -> int:
        return self.right - self.matched


def join(
    left: Path, left_ids: Collection[str], right: Path, right_ids: Collection[str], *, allow_missing: bool
) -> Join:
    """Compare the ids of two files.

    Args:
        allow_missing: ids that one of them lacks are no error, unless they have none in common.

    Raises:
        ConfigurationError: an id is in one file alone.
    """
    known_left, known_right = set(left_ids), set(right_ids)
    joined = Join(len(known_left), len(known_right), len(known_left & known_right))
    if not joined.matched:
        raise ConfigurationError(f"{left} and {right} have no id in common: name files that belong together")
    if not allow_missing:
        lacks = [
            _lack(ids, known, path, other)
            for ids, known, path, other in (
                (left_ids, known_right, left, right),
                (right_ids, known_left, right, left),
            )
            if any(id_ not in known for id_ in ids)
        ]
        if lacks:
            raise ConfigurationError(
                f"{' and '.join(lacks)}: name files that belong together, or leave out what is not in both with "
                "--allow-missing"
            )
    return joined


def _lack(ids: Collection[str], known: set[str], path: Path, other: Path) -> str:
    missing = [id_ for id_ in ids if id_ not in known]
    return f"{len(missing):,} of {len(ids):,} ids of {path} are not in {other} (the first: {missing[0]})"
