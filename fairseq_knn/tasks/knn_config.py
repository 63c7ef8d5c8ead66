"""The ``--knn-*`` flags shared by every task that works with a datastore."""

from dataclasses import dataclass, field, fields
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from fairseq_knn.combiners import COMBINERS
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.index import BACKENDS, LOADS
from fairseq_knn.models.hidden_state import KEY_KINDS

KNN_MODES = ("inference", "build_datastore")
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class KnnConfig(FairseqDataclass):
    """Flags of nearest-neighbour retrieval."""

    knn_mode: ChoiceEnum(KNN_MODES) = field(  # type: ignore[valid-type]
        default="inference",
        metadata={
            "help": "inference: translate with a datastore; build_datastore: write one (with --score-reference and "
            "--gen-subset train)"
        },
    )
    # fairseq makes flags of Optional[X], not of X | None.
    knn_datastore_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "directory of the datastore; several, separated by ':', are searched as one (in an ensemble each "
            "model searches those it built)"
        },
    )
    knn_key: Optional[ChoiceEnum(KEY_KINDS)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "hidden state that is key and query: decoder_output (default when building), ffn_input or "
            "ffn_output of the last layer; at inference the datastore knows its own"
        },
    )
    knn_combiner: ChoiceEnum(tuple(COMBINERS)) = field(  # type: ignore[valid-type]
        default="vanilla",
        metadata={"help": "how neighbours become a distribution; all but vanilla are trained (--knn-combiner-path)"},
    )
    knn_combiner_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "directory of a trained combiner, of this package or of knn-box; it knows its own kind"},
    )
    knn_k: int = field(default=8, metadata={"help": "neighbours per query"})
    knn_lambda: float = field(
        default=0.7,
        metadata={"help": "weight of the neighbours against the model, 0 to 1 (0: the model alone)"},
    )
    knn_temperature: float = field(
        default=10.0, metadata={"help": "squared distances are divided by it before the softmax"}
    )
    knn_backend: ChoiceEnum(BACKENDS) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "who searches: faiss (index made by `fairseq-knn build-index`), torch (exact, no index), or auto"
        },
    )
    knn_device: ChoiceEnum(DEVICES) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={"help": "where keys, values and index live; auto: the GPU if there is one"},
    )
    knn_nprobe: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "lists of an inverted index that are searched (default: as many as build-index found to be enough, "
            "at most 32; 32 for an index of knn-box)"
        },
    )
    knn_load: ChoiceEnum(LOADS) = field(  # type: ignore[valid-type]
        default="mmap",
        metadata={
            "help": "mmap: keys and index stay on disk, memory mapped (processes of one machine share them); ram: read "
            "into memory first, for slow or remote disks"
        },
    )
    knn_skip_threshold: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "no search where the model alone gives one token at least this probability (0 to 1; default: "
            "search everywhere)"
        },
    )
    knn_shard_sentences: int = field(
        default=8192,
        metadata={"help": "sentences per shard of a datastore: what an interrupted build loses at most"},
    )
    knn_overwrite: bool = field(default=False, metadata={"help": "replace a finished datastore"})
    knn_allow_mismatch: bool = field(
        default=False,
        metadata={"help": "use a datastore although another model or dictionary built it (rarely sensible)"},
    )


def read_config(task_config: Any) -> KnnConfig:
    """Take the ``knn_*`` settings out of a task's configuration (a dataclass, DictConfig or Namespace).

    Raises:
        ConfigurationError: a setting is out of its range.
    """
    config = KnnConfig()
    for setting in fields(KnnConfig):
        if setting.name.startswith("knn_"):
            value = getattr(task_config, setting.name, getattr(config, setting.name))
            setattr(config, setting.name, getattr(value, "value", value))
    check_config(config)
    return config


def check_config(config: KnnConfig) -> None:
    """
    Raises:
        ConfigurationError: a setting is out of its range.
    """
    for name, choices in (("knn_backend", BACKENDS), ("knn_device", DEVICES), ("knn_load", LOADS)):
        if (choice := getattr(config, name)) not in choices:
            raise ConfigurationError(f"{_flag(name)} is {choice!r}, but must be one of {', '.join(choices)}")
    for name in ("knn_k", "knn_nprobe", "knn_shard_sentences"):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigurationError(f"{_flag(name)} is {value!r}, but must be a whole number, at least 1")
    threshold = config.knn_skip_threshold
    if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold <= 1):
        raise ConfigurationError(
            f"--knn-skip-threshold is {threshold!r}, but it is compared with probabilities: choose it above 0 and up "
            "to 1"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
