"""Normalisation by length alone (Nguyen and Salazar 2019, "Transformers without Tears")."""

from typing import Any

import torch
from torch import Tensor, nn

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


def use_scale_norm(model: nn.Module) -> None:
    """Put a :class:`ScaleNorm` in the place of every layer normalisation but that of embeddings."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            # apex's, where it is installed, is no subclass of torch's
            if (isinstance(child, nn.LayerNorm) or type(child).__name__ == "FusedLayerNorm") and name not in _KEPT:
                width: Any = child.normalized_shape
                setattr(module, name, ScaleNorm(width[-1]))
