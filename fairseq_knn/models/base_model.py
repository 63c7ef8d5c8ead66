"""The frozen model below a combiner: reading it, and recognising it again."""

import os
from dataclasses import dataclass
from typing import Any

from fairseq import checkpoint_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from torch import nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.storage.digest import short

REFERENCE = "knn"  # in a checkpoint's task_state: what finds the base of a combiner


@dataclass(frozen=True)
class BaseModel:
    """A checkpoint that a combiner is trained on top of.

    Args:
        path: of its file.
        config: settings of the model, as the checkpoint holds them.
        parameters: its state.
    """

    path: str
    config: Any
    parameters: dict[str, Any]

    @property
    def architecture(self) -> str:
        """Its ``--arch``."""
        return architecture(self.config)

    def load_into(self, model: nn.Module) -> None:
        """Load the parameters, strictly.

        Raises:
            ConfigurationError: they are not those of the model.
        """
        try:
            model.load_state_dict(self.parameters, strict=True, model_cfg=self.config)  # type: ignore[call-arg]
        except RuntimeError as error:
            raise ConfigurationError(
                f"{self.path} does not fit the dictionaries of the data, or is not whole "
                f"({' '.join(str(error).split())[:200]}): use the data directory it was trained with"
            ) from error


def read_base(path: str, remedy: str) -> BaseModel:
    """Read a base model from its checkpoint.

    Args:
        path: of the file.
        remedy: what to do if there is none.

    Raises:
        ConfigurationError: there is none, or it is the checkpoint of a combiner.
    """
    if not os.path.isfile(path):
        raise ConfigurationError(f"the base model {path} does not exist: {remedy}")
    state = checkpoint_utils.load_checkpoint_to_cpu(path)
    if REFERENCE in (state.get("task_state") or {}):
        base = state["task_state"][REFERENCE]["base"]["path"]
        raise ConfigurationError(
            f"{path} is the checkpoint of a combiner, not of a model: name its base model, which was {base}"
        )
    config = state.get("cfg")
    if state.get("args") is not None:
        config = convert_namespace_to_omegaconf(state["args"])
    return BaseModel(path, config["model"], state["model"])


def architecture(config: Any) -> str:
    """``--arch`` of a model's settings; those made for fairseq-hydra-train have a ``_name`` alone."""
    return str(getattr(config, "arch", None) or getattr(config, "_name", None))


def same_model_class(one: str, other: str) -> bool:
    """Whether two architectures are the same class with other dimensions, as ``transformer`` and its variants are."""
    return bool(ARCH_MODEL_REGISTRY.get(one, one) == ARCH_MODEL_REGISTRY.get(other, other))


def check_fingerprint(model: nn.Module, expected: str, path: str) -> None:
    """
    Raises:
        ConfigurationError: the parameters of an augmented model are not those that were expected.
    """
    found = str(knn_decoder(model).knn_fingerprint)
    if found != expected:
        raise ConfigurationError(
            f"{path} is another model ({short(found)}) than the one the combiner was trained with ({short(expected)}): "
            "name that one with --knn-base-path, or train the combiner again"
        )
