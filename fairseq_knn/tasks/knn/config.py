"""The ``--knn-*`` flags shared by every task that works with a datastore."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_knn.combiners import COMBINERS, VanillaCombiner
from fairseq_knn.combiners.adaptive import FORMS
from fairseq_knn.combiners.kernel_smoothed import KERNELS
from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.index import BACKENDS, LOADS, number_of_gpus
from fairseq_knn.models.hidden_state import KEY_KINDS

KNN_MODES = ("inference", "build_datastore", "train")
DEVICES = ("auto", "cpu", "cuda")
LEARNING = ("trainable", "fixed")

# Flags that are left out are None, so that a checkpoint's own settings are told from the command line's, which win.
# Where neither says anything:
_DEFAULTS: dict[str, Any] = {
    "knn_combiner": "vanilla",
    "knn_backend": "auto",
    "knn_device": "auto",
    "knn_gpus": "1",
    "knn_load": "mmap",
    "knn_min_knns": 1,
}


@dataclass
class KnnConfig(FairseqDataclass):
    """Flags of nearest-neighbour retrieval.

    Attributes:
        kind: of the datastores, one of a plan's kinds.
        defaults: of what neither the command line nor a checkpoint says.
        usual_k: number of neighbours, unless a combiner knows better.
        usual_key: hidden state that is the key of a new datastore.
    """

    # Without types: fairseq makes flags of all that have one, those of the class, too.
    kind = TRANSLATION
    defaults = MappingProxyType({**_DEFAULTS, "knn_lambda": 0.7, "knn_temperature": 10.0})
    usual_k = 8
    usual_key = "decoder_output"

    knn_mode: ChoiceEnum(KNN_MODES) = field(  # type: ignore[valid-type]
        default="inference",
        metadata={
            "help": "inference: translate with a datastore; build_datastore: write one (fairseq-generate with "
            "--score-reference and --gen-subset train); train: train a combiner (fairseq-train)"
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
            "help": "hidden state that is key and query: decoder_output (default when a translation model builds), "
            "ffn_input (default when a language model builds) or ffn_output of the last layer; at inference the "
            "datastore knows its own"
        },
    )
    knn_combiner: Optional[ChoiceEnum(tuple(COMBINERS))] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "how neighbours become a distribution (default: vanilla); all others are trained (--knn-mode "
            "train) and then known by their checkpoint or --knn-combiner-path"
        },
    )
    knn_combiner_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "directory of a trained combiner, of this package or of knn-box; it knows its own kind"},
    )
    knn_k: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={"help": "neighbours per query (default: 8; language models: 1024, or as many entries as there are)"},
    )
    knn_lambda: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "weight of the neighbours against the model, 0 to 1 (0: the model alone; default: 0.7; language "
            "models: 0.25)"
        },
    )
    knn_temperature: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={"help": "squared distances are divided by it before the softmax (default: 10; language models: 1)"},
    )
    knn_max_k: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={"help": "training: the most neighbours that are used (default: --knn-k, or 8)"},
    )
    knn_kernel: Optional[ChoiceEnum(tuple(KERNELS))] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None, metadata={"help": "training kernel_smoothed: laplacian (default) or gaussian"}
    )
    knn_bandwidth: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "training kernel_smoothed: where it starts (default: 10 laplacian, 100 gaussian; knn-box: 1)"
        },
    )
    knn_adaptive_form: Optional[ChoiceEnum(FORMS)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "training adaptive: joint (the paper's one network over 0, 1, 2, 4, ... neighbours; default) or "
            "separate (knn-box's networks for k, lambda and temperature)"
        },
    )
    knn_k_type: Optional[ChoiceEnum(LEARNING)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={"help": "training adaptive, separate: k is trainable (default) or fixed (the value of --knn-k)"},
    )
    knn_lambda_type: Optional[ChoiceEnum(LEARNING)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={"help": "training adaptive, separate: lambda is trainable (default) or fixed (--knn-lambda)"},
    )
    knn_temperature_type: Optional[ChoiceEnum(LEARNING)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "training adaptive, separate: the temperature is trainable or fixed (--knn-temperature; default)"
        },
    )
    knn_noise_beta: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={"help": "training robust: the noise falls off as exp(-update / beta) (default: 1000)"},
    )
    knn_cache: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "training: directory in which the retrieval of every split is kept, so that base model and search "
            "run once; filled by the first run, used by the following ones"
        },
    )
    knn_base_path: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "where the base model of a combiner's checkpoint is now, if it has moved"},
    )
    knn_backend: Optional[ChoiceEnum(BACKENDS)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "who searches: faiss (index made by `fairseq-knn build-index`), torch (exact, no index), or auto "
            "(default)"
        },
    )
    knn_device: Optional[ChoiceEnum(DEVICES)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={"help": "where keys, values and index live: cpu, cuda, or auto (default): the GPU if there is one"},
    )
    knn_gpus: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "how many GPUs of the machine hold keys or index together for one process, the model's and others, "
            "or all (default: 1, the model's)"
        },
    )
    knn_nprobe: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "lists of an inverted index that are searched (default: as many as build-index found to be enough, "
            "at most 32; 32 for an index of knn-box)"
        },
    )
    knn_load: Optional[ChoiceEnum(LOADS)] = field(  # type: ignore[valid-type]  # noqa: UP045
        default=None,
        metadata={
            "help": "mmap (default): keys and index stay on disk, memory mapped (processes of one machine share them); "
            "ram: read into memory first, for slow or remote disks"
        },
    )
    knn_recompute_distances: bool = field(
        default=False,
        metadata={
            "help": "compute the distances of what an index has found from the stored keys: exact ones where it has "
            "short codes alone, for a read of k keys per query"
        },
    )
    knn_retomaton: bool = field(
        default=False,
        metadata={
            "help": "RetoMaton: neighbours are the entries after those neighbours of the step before whose token was "
            "emitted; the datastore is searched where there are too few"
        },
    )
    knn_min_knns: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "RetoMaton: search where fewer entries than these are pointed to (default: 1; --knn-max-knns or "
            "more: always)"
        },
    )
    knn_max_knns: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "RetoMaton: most entries that are pointed to (default: --knn-k; language models: 1024, or --knn-k "
            "if that is more)"
        },
    )
    knn_clusters: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "RetoMaton: name of clusters (made by `fairseq-knn cluster`) whose entries share their pointers "
            "(default: every entry has its own)"
        },
    )
    knn_reference_counting: bool = field(
        default=False,
        metadata={
            "help": "RetoMaton: as the authors' program counts, for comparison: an entry that is both searched and "
            "pointed to twice, and pointers from the end of a document to the beginning of the next"
        },
    )
    knn_skip_threshold: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "no search where the model alone gives one token at least this probability (0 to 1; default: "
            "search everywhere)"
        },
    )
    knn_shard_sentences: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "sentences per shard of a datastore: what an interrupted build loses at most (default: 8192; "
            "language models: blocks, of 262,144 tokens in all)"
        },
    )
    knn_overwrite: bool = field(default=False, metadata={"help": "replace a finished datastore"})
    knn_allow_mismatch: bool = field(
        default=False,
        metadata={"help": "use a datastore although another model or dictionary built it (rarely sensible)"},
    )
    # Stock settings that training a combiner depends on.
    finetune_from_model: Any = II("checkpoint.finetune_from_model")  # noqa: RUF009
    restore_file: Any = II("checkpoint.restore_file")  # noqa: RUF009
    reset_optimizer: Any = II("checkpoint.reset_optimizer")  # noqa: RUF009
    reset_lr_scheduler: Any = II("checkpoint.reset_lr_scheduler")  # noqa: RUF009
    reset_meters: Any = II("checkpoint.reset_meters")  # noqa: RUF009
    reset_dataloader: Any = II("checkpoint.reset_dataloader")  # noqa: RUF009
    store_ema: Any = II("ema.store_ema")  # noqa: RUF009
    ddp_backend: Any = II("distributed_training.ddp_backend")  # noqa: RUF009
    find_unused_parameters: Any = II("distributed_training.find_unused_parameters")  # noqa: RUF009
    max_tokens: Any = II("dataset.max_tokens")  # noqa: RUF009
    batch_size: Any = II("dataset.batch_size")  # noqa: RUF009


# Left at None, False or a number of their own by the command line, and of one run alone.
_OF_ONE_RUN = (
    *("knn_mode", "knn_cache", "knn_base_path", "knn_gpus", "knn_shard_sentences", "knn_overwrite"),
    "knn_allow_mismatch",
)
_SETTINGS = tuple(setting.name for setting in fields(KnnConfig) if setting.name.startswith("knn_"))
# What a combiner's checkpoint keeps.
RECORDED = tuple(name for name in _SETTINGS if name not in _OF_ONE_RUN)


@dataclass
class LanguageModelKnnConfig(KnnConfig):
    """The same flags where a language model consults the datastore, with kNN-LM's defaults."""

    kind = LANGUAGE_MODEL
    defaults = MappingProxyType({**_DEFAULTS, "knn_lambda": 0.25, "knn_temperature": 1.0})
    usual_k = 1024
    usual_key = "ffn_input"


def read_config(task_config: Any, kind: type[KnnConfig] = KnnConfig) -> KnnConfig:
    """Take the ``knn_*`` settings out of a task's configuration (a dataclass, DictConfig or Namespace).

    What is not given stays ``None``: :func:`complete` decides it.

    Args:
        task_config: of any task of this package.
        kind: which decides the defaults.

    Raises:
        ConfigurationError: a setting is out of its range.
    """
    config = kind()
    for name in _SETTINGS:
        value = getattr(task_config, name, getattr(config, name))
        setattr(config, name, getattr(value, "value", value))
    if config.knn_min_knns is not None and not config.knn_retomaton:  # not in check_config: it has a default
        raise ConfigurationError(f"{_flag('knn_min_knns')} is a setting of RetoMaton: pass --knn-retomaton, too")
    check_config(config)
    return config


def complete(config: KnnConfig, recorded: Mapping[str, Any] | None = None) -> KnnConfig:
    """Decide what was not given: by a checkpoint's own settings, and then by the defaults.

    Args:
        config: as given.
        recorded: settings of a checkpoint by name.
    """
    result = copy.copy(config)
    if recorded:
        for name in RECORDED:
            if getattr(result, name) is None:
                setattr(result, name, recorded.get(name))
    for name, value in type(config).defaults.items():
        if getattr(result, name) is None:
            setattr(result, name, value)
    check_config(result)
    return result


def check_config(config: KnnConfig) -> None:
    """
    Raises:
        ConfigurationError: a setting is out of its range.
    """
    for name, choices in _CHOICES.items():
        choice = getattr(config, name)
        if choice is not None and choice not in choices:
            raise ConfigurationError(f"{_flag(name)} is {choice!r}, but must be one of {', '.join(choices)}")
    for name in ("knn_k", "knn_max_k", "knn_nprobe", "knn_shard_sentences", "knn_min_knns", "knn_max_knns"):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigurationError(f"{_flag(name)} is {value!r}, but must be a whole number, at least 1")
    if config.knn_gpus is not None:
        number_of_gpus(config.knn_gpus)
    given = {"weight": config.knn_lambda, "temperature": config.knn_temperature}
    VanillaCombiner(**{name: value for name, value in given.items() if value is not None})  # it knows their ranges
    if config.knn_noise_beta is not None and not config.knn_noise_beta > 0:
        raise ConfigurationError(
            f"--knn-noise-beta is {config.knn_noise_beta!r}, but updates are divided by it: choose it above 0"
        )
    threshold = config.knn_skip_threshold
    if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold <= 1):
        raise ConfigurationError(
            f"--knn-skip-threshold is {threshold!r}, but it is compared with probabilities: choose it above 0 and up "
            "to 1"
        )
    if config.kind == LANGUAGE_MODEL and (config.knn_combiner_path or config.knn_combiner not in (None, "vanilla")):
        asked = "--knn-combiner-path" if config.knn_combiner_path else f"--knn-combiner {config.knn_combiner}"
        raise ConfigurationError(
            f"{asked} names a combiner that is trained for translation, and language models mix with the vanilla one: "
            "leave it out"
        )
    if config.knn_retomaton and threshold is not None:
        raise ConfigurationError(
            "--knn-retomaton and --knn-skip-threshold both decide where the datastore is searched: pass one of them"
        )
    if not config.knn_retomaton:
        # The minimum has a default, and a checkpoint may have recorded it: read_config looks at what is given.
        for name in ("knn_clusters", "knn_max_knns", "knn_reference_counting"):
            if getattr(config, name):
                raise ConfigurationError(f"{_flag(name)} is a setting of RetoMaton: pass --knn-retomaton, too")


_CHOICES: dict[str, tuple[str, ...]] = {
    "knn_mode": KNN_MODES,
    "knn_combiner": tuple(COMBINERS),
    "knn_kernel": tuple(KERNELS),
    "knn_adaptive_form": FORMS,
    "knn_k_type": LEARNING,
    "knn_lambda_type": LEARNING,
    "knn_temperature_type": LEARNING,
    "knn_backend": BACKENDS,
    "knn_device": DEVICES,
    "knn_load": LOADS,
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
