"""Everything filled in: what follows from other settings, what is still missing, what cannot be."""

import ast
import math
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.components import TRANSFORMER
from fairseq_knn.recipe.composing import COMMAND_LINE, Recipe
from fairseq_knn.recipe.settings import Settings

SPLITS = {"train": "train_data", "valid": "valid_data", "test": "test_data"}
_SOURCES = ("pairs", "text")
_HIGHEST_SEED = 2**31 - 1  # numpy takes the sum of it and the epoch, below 2**32


def resolve(recipe: Recipe) -> None:
    """Fill in, in place, what follows from other settings, and note what is needed but not given.

    Raises:
        ConfigurationError: a value is out of its range, or two contradict each other.
    """
    settings = recipe.settings
    pairs, tokenizer, training = settings.pairs, settings.tokenizer, settings.training
    _check(recipe)
    if pairs.directory is None:
        pairs.directory = str(Path("recipes") / f"{pairs.source}-{pairs.target}")
    if tokenizer.path is None and tokenizer._name == "sentencepiece":
        tokenizer.path = usual_tokenizer(settings)
    if training.save_dir is None:
        training.save_dir = str(Path(pairs.directory) / "model")
    for made in (Path(pairs.directory) / "text", Path(pairs.directory) / "binary"):
        if Path(training.save_dir).resolve().is_relative_to(made.resolve()):
            raise ConfigurationError(
                f"training.save_dir is {training.save_dir}, but {made} is for data, which are made anew when the text "
                "changes: choose another place"
            )
    if settings.model.ffn_dim is None and settings.model._name == TRANSFORMER:
        settings.model.ffn_dim = 4 * settings.model.dim
    for step in SPLITS.values():
        data = getattr(settings, step)
        if data._name == "text":
            recipe.missing |= {f"{step}.{side}" for side in ("source_file", "target_file") if not getattr(data, side)}


def require(recipe: Recipe, steps: tuple[str, ...]) -> None:
    """Refuse to take steps for which something is missing.

    Raises:
        ConfigurationError: names it.
    """
    for name in sorted(recipe.missing):
        if name.partition(".")[0] in steps:
            raise ConfigurationError(f"no {name} is specified: give {name}=VALUE, here or in the recipe's YAML file")


def usual_tokenizer(settings: Settings) -> str:
    """Where the tokenizer is if nobody says."""
    pairs = settings.pairs
    name = f"{pairs.source}-{pairs.target}.{settings.tokenizer.vocab_size}.model"
    return str(Path(str(pairs.directory)) / name)


def _check(recipe: Recipe) -> None:
    settings = recipe.settings
    pairs, training, model, data = settings.pairs, settings.training, settings.model, settings.train_data
    at_least = [
        ("pairs.valid", pairs.valid, 1),
        ("pairs.test", pairs.test, 1),
        ("tokenizer.vocab_size", settings.tokenizer.vocab_size, 1),
        ("train_data.shuffle", data.shuffle, 0),
        ("train_data.num_workers", data.num_workers, 0),
        ("valid_data.batch_size", settings.valid_data.batch_size, 1),
        ("test_data.batch_size", settings.test_data.batch_size, 1),
        ("schedule.warmup_updates", settings.schedule.warmup_updates, 0),
        ("training.seed", training.seed, 0),
        ("training.max_update", training.max_update, 0),
        ("training.max_epoch", training.max_epoch, 0),
        ("training.validate_every", training.validate_every, 1),
        ("training.log_every", training.log_every, 1),
        ("evaluation.beam", settings.evaluation.beam, 1),
    ]
    at_least += [(f"model.{name}", getattr(model, name), 1) for name in ("dim", "layers", "heads")]
    at_least += [
        (name, value, 1)
        for name, value in (
            ("train_data.batch_size", data.batch_size),
            ("train_data.max_tokens", data.max_tokens),
            ("model.ffn_dim", model.ffn_dim),
        )
        if value is not None
    ]
    for name, value, least in at_least:
        if value < least:
            raise ConfigurationError(f"{name} is {value}, but has to be at least {least}: correct it")
    for name, share in (
        ("model.dropout", model.dropout),
        ("criterion.label_smoothing", settings.criterion.label_smoothing),
    ):
        if not 0 <= share < 1:
            raise ConfigurationError(f"{name} is {share}, but has to be at least 0 and below 1: correct it")
    for name, number in (
        ("optimizer.lr", settings.optimizer.lr),
        ("optimizer.clip_norm", settings.optimizer.clip_norm),
        ("optimizer.weight_decay", settings.optimizer.weight_decay),
    ):
        if not 0 <= number < float("inf"):
            raise ConfigurationError(f"{name} is {number}, but cannot be negative or infinite: correct it")
    if training.seed > _HIGHEST_SEED:
        raise ConfigurationError(f"training.seed is {training.seed}, but has to be at most {_HIGHEST_SEED}: correct it")
    if not math.isfinite(settings.evaluation.lenpen):
        raise ConfigurationError(f"evaluation.lenpen is {settings.evaluation.lenpen}, but has to be finite: correct it")
    if settings.optimizer._name == "adam":
        _check_betas(settings.optimizer.adam_betas)
    for step in SPLITS.values():
        _one_of(f"{step}", getattr(settings, step)._name, _SOURCES)
    _one_of("device.kind", settings.device.kind, ("auto", "cpu", "cuda"))
    if settings.device.fp16 and settings.device.kind == "cpu":
        raise ConfigurationError("device.fp16 is true and device.kind cpu: half precision needs a GPU, so drop one")
    if data.batch_size is None and data.max_tokens is None:
        raise ConfigurationError("neither train_data.batch_size nor train_data.max_tokens is given: give one or both")
    if training.max_update == 0 and training.max_epoch == 0:
        raise ConfigurationError("training.max_update and training.max_epoch are both 0: give one, or it never ends")
    if settings.schedule._name == "inverse_sqrt" and settings.schedule.warmup_updates == 0:
        raise ConfigurationError(
            "schedule.warmup_updates is 0, but inverse_sqrt takes the rate at the end of the warm-up: give 1 or more, "
            "or choose schedule=fixed"
        )
    if model._name == TRANSFORMER and model.dim % model.heads:
        raise ConfigurationError(
            f"model.dim is {model.dim} and model.heads {model.heads}: choose heads that divide the dimension"
        )


def _check_betas(text: str) -> None:
    try:
        first, second = (float(beta) for beta in ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        first = second = math.nan
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ConfigurationError(
            f"optimizer.adam_betas is {text!r}, but has to be two numbers from 0 to below 1: write them as (0.9, 0.98)"
        )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{name} is {value!r}, but has to be {' or '.join(known)}: correct it")


def origin(recipe: Recipe, name: str) -> str:
    """Where a setting is from, for the help."""
    given = recipe.origins.get(name)
    if given is None:
        return "default"
    return given if given == COMMAND_LINE else Path(given).name


def check_device(recipe: Recipe) -> None:
    """Refuse a device that this machine lacks.

    Raises:
        ConfigurationError: says which.
    """
    device = recipe.settings.device
    if device.kind == "cpu" or (device.kind == "auto" and not device.fp16):
        return
    import torch

    if not torch.cuda.is_available():
        asked = "device.kind is cuda" if device.kind == "cuda" else "device.fp16 is true"
        raise ConfigurationError(
            f"{asked}, but there is no GPU that torch can use here: choose device.kind=cpu, no fp16"
        )
