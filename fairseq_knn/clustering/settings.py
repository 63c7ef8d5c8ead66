"""Everything that decides a clustering."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from fairseq_knn.errors import ConfigurationError

# Keys per cluster that k-means learns from unless told otherwise: more hardly change the centroids (faiss's limit too).
SAMPLE_PER_CLUSTER = 256
ENTRIES_PER_CLUSTER = 100  # RetoMaton's rule: N / 100 to N / 200 clusters
ITERATIONS = 20
NEIGHBOURS = 15


@dataclass(frozen=True)
class KMeans:
    """Clusters around centroids: every entry is in the cluster of the centroid nearest to its key.

    Args:
        clusters: number of clusters.
        sample: number of entries that the centroids are learned from; the others are only assigned.
        iterations: of Lloyd's algorithm.
        seed: of the sample and of where the centroids start.
    """

    method: ClassVar[str] = "kmeans"

    clusters: int
    sample: int
    iterations: int = ITERATIONS
    seed: int = 1

    @classmethod
    def of_store(
        cls,
        entries: int,
        clusters: int | None = None,
        sample: int | None = None,
        iterations: int = ITERATIONS,
        seed: int = 1,
    ) -> "KMeans":
        """Settings for a datastore of so many entries; ``None`` stands for what suits it.

        Raises:
            ConfigurationError: there are more clusters than entries or keys to learn from, or too few of something.
        """
        clusters = max(1, entries // ENTRIES_PER_CLUSTER) if clusters is None else clusters
        _at_least("--num-clusters", clusters, 1)
        _at_least("--iterations", iterations, 1)
        _at_least("--seed", seed, 0)
        if clusters > entries:
            raise ConfigurationError(
                f"--num-clusters is {clusters:,}, but the datastore has {entries:,} entries: ask for fewer clusters"
            )
        sample = min(entries, SAMPLE_PER_CLUSTER * clusters if sample is None else sample)
        if sample < clusters:
            raise ConfigurationError(
                f"--sample is {sample:,}, but {clusters:,} clusters are to be learned from it: raise --sample or lower "
                "--num-clusters"
            )
        return cls(clusters, sample, iterations, seed)


@dataclass(frozen=True)
class Greedy:
    """Clusters of near entries with one value: greedy merging (He et al. 2021, Martins et al. 2022).

    Args:
        neighbours: how many nearest entries of an entry may join the cluster that it founds.
        seed: of the order in which entries are visited.
        backend: who finds them: ``auto``, ``faiss`` or ``torch``.
    """

    method: ClassVar[str] = "greedy"

    neighbours: int = NEIGHBOURS
    seed: int = 1
    backend: str = "auto"

    def __post_init__(self) -> None:
        _at_least("--neighbours", self.neighbours, 1)
        _at_least("--seed", self.seed, 0)


Settings = KMeans | Greedy


def made_by(settings: Settings) -> dict[str, Any]:
    """What is stored with clusters of how they were made."""
    return {"method": settings.method, **asdict(settings)}


def difference(made: dict[str, Any], other: dict[str, Any]) -> str:
    """Name the first setting in which two clusterings differ, with both values; empty when equal."""
    for name in dict.fromkeys(["method", *made, *other]):
        if made.get(name) != other.get(name):
            return f"{name} {made.get(name)} against {other.get(name)}"
    return ""


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigurationError(f"{flag} is {value}, but must be at least {least}")
