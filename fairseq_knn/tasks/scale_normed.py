"""Models with ScaleNorm, which their checkpoints say themselves."""

from typing import Any

from torch import nn

from fairseq_knn.models.scale_norm import check_scale_norm, use_scale_norm

_KEY = "scale_norm"


class ScaleNormed:
    """Mixin of tasks that build and load models with ScaleNorm.

    fairseq hands a checkpoint's state of the task to :meth:`load_state_dict` before it builds the model, so decoding
    needs no flag.

    Attributes:
        scale_norm: whether models that are built have it.
    """

    scale_norm = False

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> nn.Module:
        model: nn.Module = super().build_model(cfg, from_checkpoint)  # type: ignore[misc]
        if self.scale_norm:
            use_scale_norm(model)
        model.register_load_state_dict_pre_hook(_check)  # type: ignore[no-untyped-call]
        # The next checkpoint of an ensemble may be an older one, which has no state of a task.
        self.scale_norm = self.scale_norm and not from_checkpoint
        return model

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        return {**state, _KEY: True} if self.scale_norm else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scale_norm = state_dict.get(_KEY, False)
        super().load_state_dict({name: value for name, value in state_dict.items() if name != _KEY})  # type: ignore[misc]


def _check(model: nn.Module, parameters: dict[str, Any], *_: Any) -> None:
    """What torch calls before it loads parameters."""
    check_scale_norm(model, parameters)
