"""The configuration of stock fairseq-hydra-train that a recipe means."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_knn.recipe import components
from fairseq_knn.recipe.composing import Recipe
from fairseq_knn.recipe.user_code import user_dir

_NEVER = 1_000_000  # epochs
# Longest sentence of stock's translation tasks, in tokens; architectures that are described by flags take it from them.
_POSITIONS = 1024


def fairseq_settings(recipe: Recipe, data: Path, bpe: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as they stand in the YAML file of fairseq-hydra-train.

    Args:
        recipe: resolved and checked.
        data: directory of the binarised data.
        bpe: fairseq's settings of the tokenizer, which a checkpoint then knows.
    """
    settings = recipe.settings
    pairs, training = settings.pairs, settings.training
    return {
        "common": {
            "user_dir": user_dir(settings.code.user_dir),
            "seed": training.seed,
            "cpu": settings.device.kind == "cpu",
            "fp16": settings.device.fp16,
            "log_format": "simple",
            "log_interval": training.log_every,
        },
        # Without it one process for every GPU of the machine is started, also where none is used.
        **({"distributed_training": {"distributed_world_size": 1}} if settings.device.kind == "cpu" else {}),
        "task": {
            **_section(recipe, "task"),
            **{"data": str(data), "source_lang": pairs.source, "target_lang": pairs.target},
            **_shuffling(recipe),
        },
        "bpe": dict(bpe),
        "model": _model(recipe),
        "criterion": _section(recipe, "criterion"),
        "optimizer": _section(recipe, "optimizer", without=("lr", "clip_norm")),
        "lr_scheduler": _section(recipe, "schedule"),
        "dataset": _dataset(recipe),
        "optimization": {
            "lr": [settings.optimizer.lr],
            "clip_norm": settings.optimizer.clip_norm,
            "max_update": training.max_update,
            "max_epoch": training.max_epoch,
        },
        "checkpoint": {
            "save_dir": training.save_dir,
            "save_interval": training.max_epoch or _NEVER,  # the end of training is kept, however it is reached
            "save_interval_updates": training.validate_every,
            "keep_interval_updates": 1,
            "no_epoch_checkpoints": True,
            "best_checkpoint_metric": "loss",
            "patience": training.patience,
        },
        "hydra": {
            "job": {"chdir": False},  # relative paths mean what they mean on the command line
            "run": {"dir": "${checkpoint.save_dir}"},
        },
    }


def _section(recipe: Recipe, step: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    name = recipe.name_of(step)
    own = {setting: value for setting, value in components.own(recipe, step).items() if setting not in without}
    if not components.has_dataclass(step, name):
        # What flags are read beside: nothing of it is found where a configuration has it.
        flags = {"lr": [recipe.settings.optimizer.lr]} if step in ("optimizer", "schedule") else {"sentence_avg": False}
        stated = {setting: option.default for setting, option in components.options(step, name).items()}
        own = {**flags, **stated, **own}
    return {"_name": name, **own, **recipe.extra[step]}


def _shuffling(recipe: Recipe) -> dict[str, Any]:
    """How far pairs are shuffled, for tasks that can be told."""
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    described = TASK_DATACLASS_REGISTRY.get(recipe.name_of("task"))
    known = hasattr(described, "__dataclass_fields__") and "shuffle_window" in described.__dataclass_fields__
    return {"shuffle_window": recipe.settings.train_data.shuffle} if known else {}


def _dataset(recipe: Recipe) -> dict[str, Any]:
    train = recipe.settings.train_data
    every = recipe.settings.training.validate_every
    return {
        "batch_size": train.batch_size,
        "max_tokens": train.max_tokens,
        "num_workers": train.num_workers,
        "batch_size_valid": recipe.settings.valid_data.batch_size,
        "max_tokens_valid": None,
        "required_batch_size_multiple": 1,  # with 8, stock's default, pairs of the last batch are left out
        "validate_interval": recipe.settings.training.max_epoch or _NEVER,
        "validate_interval_updates": every,
    }


def _model(recipe: Recipe) -> dict[str, Any]:
    name, extra = recipe.name_of("model"), recipe.extra["model"]
    if components.has_dataclass("model", name):
        return {"_name": name, **extra}
    chosen = {**(_transformer(recipe) if name == components.TRANSFORMER else {}), **extra}
    # In a configuration an architecture cannot add settings while the model is built, nor read those of others that
    # flags would be beside it, so all are there.
    flags = {"max_source_positions": _POSITIONS, "max_target_positions": _POSITIONS}
    chosen = {**flags, "criterion": recipe.name_of("criterion"), **chosen}
    return {"_name": name, **components.architecture(name, chosen)}


def _transformer(recipe: Recipe) -> dict[str, Any]:
    """fairseq's names for the recipe's short settings."""
    model = recipe.settings.model
    sides = {
        "embed_dim": model.dim,
        "ffn_embed_dim": model.ffn_dim,
        "layers": model.layers,
        "attention_heads": model.heads,
        "normalize_before": model.pre_norm,
    }
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()}
    return {**both, "dropout": model.dropout, "share_all_embeddings": model.share_embeddings}
