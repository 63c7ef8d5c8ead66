"""An actor of one number per language."""

import numpy as np
from torch import Tensor, nn

from fairseq_knn.sampling.actors.language_actor import ActorSettings, log_tensor
from fairseq_knn.sampling.actors.optimised import OptimisedActor


class FreeLogits(nn.Module):
    """A vector.

    Args:
        logits: where it starts, (n,).
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self) -> Tensor:
        return self.logits


class FreeLogitsActor(OptimisedActor):
    """A logit for each language: the actor of MultiDDS (Wang et al. 2020, arXiv 2004.06748)."""

    kind = "base"
    scales_rewards = True

    def _make_network(self, initial: np.ndarray, settings: ActorSettings) -> nn.Module:
        return FreeLogits(log_tensor(initial))
