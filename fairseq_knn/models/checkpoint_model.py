"""A model from its checkpoint, of which nothing else is taken into memory."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, FairseqEncoderModel, FairseqLanguageModel
from omegaconf import OmegaConf
from torch import nn

from fairseq_knn.compat import make_stock
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.base_model import architecture

# Settings of models that name other files to begin with.
_PRETRAINED = (
    *("encoder_embed_path", "decoder_embed_path"),
    *("load_pretrained_encoder_from", "load_pretrained_decoder_from"),
)


def load_model(path: str, task_of: Callable[[Any], Any], *, flag: str, role: str, remedy: str) -> nn.Module:
    """Read a model that is not trained any more.

    Args:
        path: of its checkpoint.
        task_of: gives the task that builds the model, from the settings of that it was trained with.
        flag: that names the checkpoint, for messages.
        role: of the model, for messages.
        remedy: what to do if its parameters and its dictionaries do not go together.

    Raises:
        ConfigurationError: there is none, it is no checkpoint of fairseq, or it does not fit its dictionaries.
    """
    state, config = _state_and_config(path, flag, role)
    settings = config["model"]
    _check_architecture(settings, path, flag, role)
    task = task_of(config["task"])
    for name in _PRETRAINED:
        if getattr(settings, name, None):  # all parameters come from the checkpoint, and the file may be gone
            setattr(settings, name, None)
    try:
        model: nn.Module = task.build_model(settings, from_checkpoint=True)
        model.load_state_dict(state["model"], strict=True, model_cfg=settings)  # type: ignore[call-arg]
    except RuntimeError as error:
        raise ConfigurationError(
            f"{flag} {path} ({architecture(settings)}) does not fit its dictionaries "
            f"({' '.join(str(error).split())[:200]}): {remedy}"
        ) from error
    return model


def task_settings(path: str, *, flag: str, role: str) -> Any:
    """Settings of the task a model was trained with.

    Args:
        path, flag, role: as those of :func:`load_model`.

    Raises:
        ConfigurationError: there is no checkpoint, or it is none of fairseq.
    """
    return _state_and_config(path, flag, role)[1]["task"]


def _state_and_config(path: str, flag: str, role: str) -> tuple[dict[str, Any], Any]:
    if not Path(path).is_file():
        found = "is no file" if Path(path).exists() else "does not exist"
        raise ConfigurationError(f"{flag} {path} {found}: name the checkpoint of {role}")
    state = _read(path, flag, role)
    config = state.get("cfg")
    if state.get("args") is not None:
        config = convert_namespace_to_omegaconf(state["args"])
    if not config or not config["model"] or "model" not in state:
        raise ConfigurationError(f"{flag} {path} is no checkpoint of a fairseq model: name that of {role}")
    return state, config


def _check_architecture(settings: Any, path: str, flag: str, role: str) -> None:
    """
    Raises:
        ConfigurationError: nobody has registered it, or it does not translate.
    """
    name = architecture(settings)
    kind = ARCH_MODEL_REGISTRY.get(name) or MODEL_REGISTRY.get(name)
    if kind is None:
        raise ConfigurationError(
            f"{flag} {path} has the architecture {name}, which is not registered: name the folder that registers it "
            f"with --user-dir, or another checkpoint of {role}"
        )
    if issubclass(kind, FairseqEncoderModel | FairseqLanguageModel):
        raise ConfigurationError(
            f"{flag} {path} is a {kind.__name__}, but {role} has an encoder and a decoder: name another checkpoint"
        )


def _configuration(settings: Any) -> Any:
    return OmegaConf.create(settings) if isinstance(settings, dict) else settings


def _read(path: str, flag: str, role: str) -> dict[str, Any]:
    """A checkpoint; mapped, where its format allows it, so that the state of its optimiser is never read."""
    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("it holds something else than a dictionary")
        # Stock's reader takes everything into memory. Of what it makes of that, models in the newer style need the
        # settings alone, as a configuration.
        if state.get("cfg") is not None:
            state["cfg"] = {name: _configuration(state["cfg"].get(name)) for name in ("model", "task")}
            make_stock(state)
            return state
        upgraded: dict[str, Any] = checkpoint_utils._upgrade_state_dict(state)
        return upgraded
    except Exception as error:  # reading what is no pickle can raise anything
        raise ConfigurationError(
            f"{flag} {path} cannot be read as a checkpoint of fairseq ({' '.join(str(error).split())[:200]}): name "
            f"the checkpoint of {role}"
        ) from error
