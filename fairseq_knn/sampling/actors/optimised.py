"""Actors with parameters that Adam learns."""

from abc import abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors.language_actor import ActorSettings, LanguageActor


def reward_loss(logits: Tensor, rewards: Tensor, scale_reward: bool = False) -> Tensor:
    """What an actor minimises, given the rewards R.

    ``-sum_i R_i log P_i`` with P = softmax(logits), over all languages, so without the noise of sampling. Its gradient
    is ``P sum(R) - R``: rewards that are not negative lead to ``P = R / sum(R)``.

    Scaled, every term is weighed by P_i as it is, which makes the gradient ``-P (R - E_P[R])``. That is REINFORCE
    without its noise, the gradient of the expected reward, ``-E_P[R]``, which is what is returned. It leads to the
    language with the highest reward alone.

    Args:
        logits: (n,).
        rewards: (n,).
        scale_reward: the second instead of the first.
    """
    if scale_reward:
        return -(logits.softmax(dim=0) * rewards).sum()
    return -(logits.log_softmax(dim=0) * rewards).sum()


class OptimisedActor(LanguageActor):
    """P is the softmax of what a module returns; every round takes some steps of Adam.

    Adam keeps its state from round to round. A step of it hardly depends on how large the rewards are: what counts is
    which of them are larger than P lets expect, and in ``optim_steps`` steps a free logit moves by about
    ``optim_steps * lr`` at most.
    """

    def __init__(self, initial: np.ndarray, settings: ActorSettings) -> None:
        super().__init__(initial, settings)
        self._network = self._make_network(initial, settings)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr=settings.lr)

    @abstractmethod
    def _make_network(self, initial: np.ndarray, settings: ActorSettings) -> nn.Module:
        """A module in float64 that takes nothing and returns logits (n,), at first the logarithms of *initial*."""

    def _loss(self, logits: Tensor, rewards: Tensor, similarity: Tensor) -> Tensor:
        return reward_loss(logits, rewards, self.settings.scale_reward)

    def _logits(self) -> Tensor:
        logits: Tensor = self._network()
        return logits

    @torch.enable_grad()
    def _learn(self, rewards: Tensor, similarity: Tensor) -> None:
        for _ in range(self.settings.optim_steps):
            self._optimiser.zero_grad()
            self._loss(self._logits(), rewards, similarity).backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def _state(self) -> dict[str, Any]:
        return {
            "network": deepcopy(dict(self._network.state_dict())),
            "optimiser": deepcopy(self._optimiser.state_dict()),
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        own = self._network.state_dict()
        for name, tensor in state["network"].items():
            if name not in own or own[name].shape != tensor.shape:
                raise ConfigurationError(
                    f"the checkpoint holds an actor {self.kind!r} of other sizes ({name} is {tuple(tensor.shape)}, but "
                    f"{tuple(own[name].shape) if name in own else 'nothing'} was asked for): give its flags as "
                    "before, or start without this checkpoint"
                )
        self._network.load_state_dict(state["network"])
        # A copy, since Adam goes on in the tensors it is given.
        self._optimiser.load_state_dict(deepcopy(state["optimiser"]))
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.lr  # what is asked for now, not what the checkpoint was written with
