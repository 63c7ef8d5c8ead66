"""Parts of an index: each the trained index with a range of the entries, for one process of several to fill."""

import re
from dataclasses import dataclass
from pathlib import Path

import faiss

from fairseq_knn.datastore.layout import index_path
from fairseq_knn.index.checkpoint import Checkpoint
from fairseq_knn.index.record import IndexSettings

PART_BYTES = 4 << 30  # of the codes of a part, where nobody says how many parts there are to be
_NAME = re.compile(r"part-(\d+)-of-(\d+)\.json")


@dataclass(frozen=True)
class PartSettings:
    """What a part is made of.

    Args:
        index: the settings of the whole.
        trained: SHA-256 of the trained index that keys are added to.
        num_shards: number of parts.
        shard_id: number of this one, from 0.
    """

    index: IndexSettings
    trained: str
    num_shards: int
    shard_id: int

    @property
    def entries(self) -> range:
        """The entries of this part."""
        total = self.index.entries
        return range(total * self.shard_id // self.num_shards, total * (self.shard_id + 1) // self.num_shards)


class Parts:
    """The parts of one index in the directory of its datastore.

    Args:
        root: the directory.
        settings: of the index.
        trained: SHA-256 of the trained index.
    """

    def __init__(self, root: Path, settings: IndexSettings, trained: str) -> None:
        self._root, self._settings, self._trained = root, settings, trained

    def settings(self, num_shards: int, shard_id: int) -> PartSettings:
        """What a part is made of."""
        return PartSettings(self._settings, self._trained, num_shards, shard_id)

    def open(self, num_shards: int, shard_id: int) -> Checkpoint:
        """A part as far as it is there."""
        return Checkpoint(self._root, self.settings(num_shards, shard_id), _name(num_shards, shard_id))

    def missing(self, num_shards: int) -> list[int]:
        """Numbers of the parts that are not complete."""
        return [number for number in range(num_shards) if self.open(num_shards, number).written is None]

    def begun(self) -> int | None:
        """In how many parts an index of these settings was begun; ``None`` if in none."""
        counts: dict[int, int] = {}
        for note in self._root.glob(f".{index_path(self._root).name}.part-*.json"):
            found = _NAME.search(note.name)
            number, of = (int(found[1]), int(found[2])) if found else (0, 0)
            if number < of and self.open(of, number).begun:
                counts[of] = counts.get(of, 0) + 1
        # Of several divisions the one that lacks least.
        return min(counts, key=lambda of: (of - counts[of], of)) if counts else None


def usual_number(index: faiss.Index, entries: int) -> int:
    """How many parts an index is built in where nobody says so: each holds codes of 4 GiB at most."""
    lists = faiss.try_extract_index_ivf(index)
    size = int(lists.code_size) + 8 if lists is not None else 4 * int(index.d)
    return max(1, -(-entries * size // PART_BYTES))


def _name(num_shards: int, shard_id: int) -> str:
    return f"part-{shard_id}-of-{num_shards}"
