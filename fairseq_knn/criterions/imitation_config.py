"""The flags of imitation, and whether they go together."""

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.schedule import SCHEDULES, BetaSchedule

OUTPUTS = ("argmax", "full", "topk")
CONTEXTS = ("mix", "reference", "student")
MIXINGS = ("sentence", "loss")
INPUTS = ("transcript", "audio")
NORMALIZERS = ("positions", "target")
_TOP_K = 8


@dataclass
class ImitationConfig(FairseqDataclass):
    """Flags of imitation-based distillation; by default, ImitKD-optimal."""

    # fairseq makes flags of Optional[X], not of X | None.
    expert: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "checkpoint of the model that is imitated"}
    )
    expert_vocab_src: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "the expert's dictionary of the source language"}
    )
    expert_vocab_tgt: Optional[str] = field(  # noqa: UP045
        default=None, metadata={"help": "the expert's dictionary of the target language, which must be the student's"}
    )
    expert_data: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "directory with the expert's dictionaries, or the one dictionary of both its languages; instead of "
            "--expert-vocab-src and --expert-vocab-tgt",
            "argparse_alias": "--path",
        },
    )
    bpe_codes: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "codes of fastBPE or subword-nmt, or a sentencepiece model, that transcripts are divided with for "
            "the expert; without it, as src_pre_tokenizer and src_bpe_tokenizer in the data's YAML say, or at spaces"
        },
    )
    kd_expert_output: ChoiceEnum(OUTPUTS) = field(  # type: ignore[valid-type]
        default="argmax",
        metadata={
            "help": "what is learned of the expert at each position: its likeliest token (argmax), its distribution "
            "(full), or that over its --kd-topk likeliest tokens (topk)"
        },
    )
    kd_topk: Optional[int] = field(  # noqa: UP045
        default=None, metadata={"help": "number of tokens for --kd-expert-output topk (8)"}
    )
    kd_context: ChoiceEnum(CONTEXTS) = field(  # type: ignore[valid-type]
        default="mix",
        metadata={
            "help": "which prefixes expert and student continue: those of references, those of the student's own "
            "translations, or a mixture that --beta-schedule moves from the first to the second"
        },
    )
    kd_mixing: ChoiceEnum(MIXINGS) = field(  # type: ignore[valid-type]
        default="sentence",
        metadata={
            "help": "how --kd-context mix mixes: each sentence has its reference with probability beta (sentence), or "
            "all have both, weighted with beta and 1 - beta (loss; twice the time)"
        },
    )
    kd_expert_input: ChoiceEnum(INPUTS) = field(  # type: ignore[valid-type]
        default="transcript",
        metadata={"help": "what the expert reads: the column src_text, or the student's audio"},
    )
    kd_rollout_topk: int = field(
        default=0,
        metadata={"help": "the student's translations are sampled among so many of its likeliest tokens; 0: greedy"},
    )
    kd_pool: int = field(
        default=1,
        metadata={
            "help": "batches of an update (--update-freq) of which the student's translations are made at once; "
            "encoders that hear padding at the end of an utterance hear more of it then"
        },
    )
    kd_normalize: ChoiceEnum(NORMALIZERS) = field(  # type: ignore[valid-type]
        default="positions",
        metadata={
            "help": "what the loss of a batch is divided by: the positions that were summed, or the tokens of the "
            "references, as in the original code"
        },
    )
    kd_cache: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "directory to keep the expert's likeliest tokens after reference prefixes in, which are computed "
            "once, before the first epoch; with --kd-expert-output argmax or topk"
        },
    )
    kd_max_oov: float = field(
        default=0.05,
        metadata={
            "help": "greatest share of symbols that dictionaries may lack: the expert's of transcripts, the student's "
            "of translations"
        },
    )
    beta_schedule: ChoiceEnum(SCHEDULES) = field(  # type: ignore[valid-type]
        default="exponential",
        metadata={
            "help": "probability beta of a reference prefix, at progress p of --max-update or --max-epoch: "
            "base ** -p, linearly from 1 to --beta-final, or --beta-value"
        },
    )
    beta_base: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "base of the exponential schedule (200)"}
    )
    beta_final: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "where the linear schedule ends (0)"}
    )
    beta_value: Optional[float] = field(  # noqa: UP045
        default=None, metadata={"help": "beta of the constant schedule"}
    )
    report_accuracy: bool = field(default=False, metadata={"help": "how often the reference is the first choice"})
    ignore_prefix_size: int = field(
        default=0,
        metadata={
            "help": "first tokens of a target that are given (tags of languages), so are neither decoded nor learned"
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")
    max_update: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")
    update_freq: Any = field(default=II("optimization.update_freq"))
    skip_remainder_batch: bool = II("optimization.skip_remainder_batch")
    seed: int = II("common.seed")


def schedule_of(config: Any) -> BetaSchedule:
    """Beta over a training with these settings.

    Raises:
        ConfigurationError: it is not said how long that is, or said twice.
    """
    if str(config.kd_context) != "mix":
        for name in ("beta_base", "beta_final", "beta_value"):
            if getattr(config, name) is not None:
                raise ConfigurationError(
                    f"--{name.replace('_', '-')} mixes reference prefixes with the student's, but --kd-context is "
                    f"{config.kd_context}: choose --kd-context mix, or leave the flag out"
                )
        return BetaSchedule("constant", value=1.0 if str(config.kd_context) == "reference" else 0.0)
    schedule = BetaSchedule(str(config.beta_schedule), config.beta_base, config.beta_final, config.beta_value)
    if schedule.needs_horizon and (config.max_update > 0) == (config.max_epoch > 0):
        found = "both --max-update and --max-epoch are" if config.max_update > 0 else "neither of them is"
        raise ConfigurationError(
            f"--beta-schedule {config.beta_schedule} moves beta over the training, whose length is --max-update or "
            f"--max-epoch, but {found} given: give one, or --beta-schedule constant --beta-value BETA"
        )
    return schedule


def tokens_kept(config: Any) -> int:
    """How many of the expert's likeliest tokens are learned at each position, where it is not all of them."""
    if str(config.kd_expert_output) != "topk":
        return 1
    return _TOP_K if config.kd_topk is None else int(config.kd_topk)


def check_imitation(config: Any) -> None:
    """
    Raises:
        ConfigurationError: settings are out of their range, or contradict each other.
    """
    output, context = str(config.kd_expert_output), str(config.kd_context)
    for flag, value, least in (
        ("--kd-topk", config.kd_topk, 1),
        ("--kd-rollout-topk", config.kd_rollout_topk, 0),
        ("--kd-pool", config.kd_pool, 1),
        ("--ignore-prefix-size", config.ignore_prefix_size, 0),
    ):
        if value is not None and value < least:
            raise ConfigurationError(f"{flag} is {value}, but must be at least {least}: correct it")
    if config.kd_topk is not None and output != "topk":
        raise ConfigurationError(
            f"--kd-topk is a setting of --kd-expert-output topk, but that is {output}: leave it out, or choose topk"
        )
    if not 0 <= config.kd_max_oov <= 1:
        raise ConfigurationError(f"--kd-max-oov is {config.kd_max_oov}, but a share is between 0 and 1: correct it")
    if config.kd_cache is not None and output == "full":
        raise ConfigurationError(
            "--kd-cache holds a few tokens for every position, but --kd-expert-output is full: choose topk or argmax, "
            "or leave --kd-cache out"
        )
    if config.kd_cache is not None and context == "student":
        raise ConfigurationError(
            "--kd-cache holds what the expert says after references, but --kd-context is student: leave it out"
        )
    if context != "mix":
        for flag, value, usual in (
            ("--kd-mixing", str(config.kd_mixing), "sentence"),
            ("--beta-schedule", str(config.beta_schedule), "exponential"),
        ):
            if value != usual:
                raise ConfigurationError(
                    f"{flag} {value} is about a mixture of prefixes, but --kd-context is {context}: choose "
                    "--kd-context mix, or leave the flag out"
                )
    if context == "reference":
        for flag, given in (("--kd-rollout-topk", config.kd_rollout_topk > 0), ("--kd-pool", config.kd_pool > 1)):
            if given:
                raise ConfigurationError(
                    f"{flag} is about the student's translations, but --kd-context reference makes none: leave it out, "
                    "or choose another --kd-context"
                )


def preset(name: str, description: str, **defaults: Any) -> type[ImitationConfig]:
    """The same flags with other defaults.

    Args:
        name: of the dataclass.
        description: its docstring.
        defaults: of some flags.
    """
    original = {entry.name: entry for entry in fields(ImitationConfig)}
    changed = [
        (flag, original[flag].type, field(default=value, metadata=dict(original[flag].metadata)))
        for flag, value in defaults.items()
    ]
    return make_dataclass(name, changed, bases=(ImitationConfig,), namespace={"__doc__": description})
