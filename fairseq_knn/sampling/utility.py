"""From how much each training language helps each development language to one reward per training language.

After Wang, Tsvetkov and Neubig 2020 (MultiDDS, arXiv 2004.06748), who call ``ave`` regular, ``min-half`` low and
``max-half`` high.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError

UTILITIES = ("ave", "min-half", "max-half", "median")

_DECAY = 0.5


def row_weights(dev_losses: Tensor, utility: str, weights: Tensor | None = None) -> Tensor:
    """How much every development language counts.

    ``ave``: all; ``min-half``: the half with the highest losses, with the middle one of an odd number; ``max-half``:
    the half with the lowest, at least one; ``median``: the one in the middle, of an even number the two in the middle.
    Of equal losses, the earlier language's is taken for the lower.

    Args:
        dev_losses: float64 (K,).
        utility: one of :data:`UTILITIES`.
        weights: of the development languages against each other, above 0, float64 (K,); ``None``: all are equal.

    Returns:
        float64 (K,), sums to 1.

    Raises:
        ConfigurationError: there is no such utility.
    """
    count = len(dev_losses)
    ascending = dev_losses.argsort(stable=True)
    match utility:
        case "ave":
            counting = ascending
        case "min-half":
            counting = ascending[count // 2 :]
        case "max-half":
            counting = ascending[: max(count // 2, 1)]
        case "median":
            counting = ascending[(count - 1) // 2 : count // 2 + 1]
        case _:
            raise ConfigurationError(
                f"the utility is {utility!r}, but it must be one of {', '.join(UTILITIES)}: correct --utility-type"
            )
    result = torch.zeros_like(dev_losses)
    result[counting] = 1.0 if weights is None else weights[counting]
    return result / result.sum()


def development_weights(weights: Sequence[float], languages: int) -> Tensor:
    """What the user gave as weights of the development languages.

    Args:
        weights: one for each.
        languages: how many there are, K.

    Returns:
        float64 (K,).

    Raises:
        ConfigurationError: there are more or fewer, or one is not above 0 or not finite.
    """
    if len(weights) != languages:
        raise ConfigurationError(
            f"--language-weight holds {len(weights)} weights for {languages} development languages: give one for each "
            "of --eval-lang-pairs"
        )
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise ConfigurationError(
                f"--language-weight holds {weight}, but a mean is taken with these weights: give a finite one above "
                "0, or leave the language out of --eval-lang-pairs"
            )
    return torch.tensor(weights, dtype=torch.float64)


class RewardBaseline:
    """A running mean of the rewards, which is taken off them; the first round's are left as they are."""

    def __init__(self) -> None:
        self.value: float | None = None

    def subtract(self, rewards: Tensor) -> Tensor:
        """The rewards of a round, float64 (n,), less the mean of those before; the mean then takes them in."""
        mean = float(rewards.mean())
        if self.value is None:
            self.value = mean
            return rewards
        centred = rewards - self.value
        self.value = _DECAY * self.value + (1 - _DECAY) * mean
        return centred

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]
