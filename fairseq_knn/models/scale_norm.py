"""Normalisation by length alone (Nguyen and Salazar 2019, "Transformers without Tears")."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

_LEAST = 1e-5  # length below which a vector is not scaled up any further
_KEPT = {"layernorm_embedding"}  # the authors of MultiDDS replace the norms of the layers and the last ones


class ScaleNorm(nn.Module):
    """``g * x / max(|x|, 1e-5)`` with one learned number g, which begins at the square root of the width.

    Args:
        width: of x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(width) ** 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Scale vectors of any batch shape, (..., width); lengths are computed in float32."""
        length = x.float().norm(dim=-1, keepdim=True).clamp_min(_LEAST)
        scaled: Tensor = x.float() / length * self.scale.float()
        return scaled.type_as(x)


def check_scale_norm(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Refuse parameters of a model that is normalised in another way.

    Args:
        model: that they are for.
        state: parameters by name.

    Raises:
        ConfigurationError: one has ScaleNorm and the other has not.
    """
    theirs = any(name.endswith("_layer_norm.scale") for name in state)
    ours = any(isinstance(module, ScaleNorm) for module in model.modules())
    if theirs != ours:
        raise ConfigurationError(
            f"the checkpoint was trained {'with' if theirs else 'without'} --scale-norm, and this run is "
            f"{'without' if theirs else 'with'} it: {'pass it' if theirs else 'leave it out'}, or choose another "
            "checkpoint or --save-dir"
        )


def use_scale_norm(model: nn.Module) -> None:
    """Put a :class:`ScaleNorm` in the place of every layer normalisation but that of embeddings."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            # apex's, where it is installed, is no subclass of torch's
            if (isinstance(child, nn.LayerNorm) or type(child).__name__ == "FusedLayerNorm") and name not in _KEPT:
                width: Any = child.normalized_shape
                setattr(module, name, ScaleNorm(width[-1]))
