"""Settings of retrieval in a model that is loaded already, whatever framework it is of."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from fairseq_knn.combiners import VanillaCombiner
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.index import BACKENDS, LOADS, number_of_gpus

DEVICES = ("auto", "cpu", "cuda")
_CHOICES = {"backend": BACKENDS, "device": DEVICES, "load": LOADS}
_WHOLE_NUMBERS = {"k": 1, "nprobe": 1, "min_knns": 1, "max_knns": 1}


@dataclass(frozen=True)
class WrapperSettings:
    """What is ``None`` is decided by the datastore and by what the model does.

    Args:
        k: number of neighbours.
        lmbda: weight of the neighbours against the model, 0 to 1.
        temperature: squared distances are divided by it.
        combiner_path: directory of a trained combiner, which takes the place of *lmbda* and *temperature*.
        backend, device, gpus, nprobe, load: see :class:`~fairseq_knn.retrieval.Retriever`.
        recompute_distances: compute the distances of what was found again, from the keys.
        skip_threshold: no search where the model alone gives one token at least this probability.
        key: hidden state that is the query; a datastore knows its own.
        allow_mismatch: use a datastore although another model built it.
        retomaton: follow pointers.
        no_pointer: but do not (for comparison).
        min_knns: search where fewer pointers are left than this; any value from *max_knns* on searches everywhere.
        max_knns: follow at most so many pointers.
        clusters: name of the datastore's clusters, whose members pointers are extended to.
        reference_counting: count as the authors' program does; see :class:`~fairseq_knn.retrieval.automaton.Automaton`.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    k: int | None = None
    lmbda: float | None = None
    temperature: float | None = None
    combiner_path: str | None = None
    backend: str = "auto"
    device: str = "auto"
    gpus: int | str = 1
    nprobe: int | None = None
    load: str = "mmap"
    recompute_distances: bool = False
    skip_threshold: float | None = None
    key: str | None = None
    allow_mismatch: bool = False
    retomaton: bool = False
    no_pointer: bool = False
    min_knns: int = 1
    max_knns: int | None = None
    clusters: str | None = None
    reference_counting: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (choice := getattr(self, name)) not in choices:
                raise ConfigurationError(f"--knn-{name} is {choice!r}, but must be one of {', '.join(choices)}")
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                flag = f"--knn-{name.replace('_', '-')}"
                raise ConfigurationError(f"{flag} is {value!r}, but must be a whole number, at least {least}")
        number_of_gpus(self.gpus)
        given = {"weight": self.lmbda, "temperature": self.temperature}
        VanillaCombiner(**{name: value for name, value in given.items() if value is not None})  # it knows their ranges
        threshold = self.skip_threshold
        if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold <= 1):
            raise ConfigurationError(
                f"--knn-skip-threshold is {threshold!r}, but it is compared with probabilities: choose it above 0 and "
                "up to 1"
            )
        if self.retomaton and threshold is not None:
            raise ConfigurationError(
                "RetoMaton and skip_threshold both decide where the datastore is searched: choose one of them"
            )

    @classmethod
    def of(cls, names: tuple[str, ...], given: Mapping[str, Any], *, retomaton: bool) -> Self:
        """Settings by name.

        Args:
            names: what may be given.
            given: what is.
            retomaton: see above.

        Raises:
            ConfigurationError: a name is unknown, or a setting out of its range.
        """
        for name in given:
            if name not in names:
                raise ConfigurationError(f"{name!r} is no setting of retrieval: choose among {', '.join(names)}")
        return cls(**given, retomaton=retomaton)


OF_RETOMATON = ("no_pointer", "min_knns", "max_knns", "clusters", "reference_counting")
KNN_SETTINGS = tuple(field.name for field in fields(WrapperSettings) if field.name not in (*OF_RETOMATON, "retomaton"))
RETOMATON_SETTINGS = (*KNN_SETTINGS, *OF_RETOMATON)
