"""Training of the actors that score sentence pairs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors import InstanceActor

_LOG_LEAST = math.log(1e-20)  # of scores far below it nothing is learned


class InstanceActorTrainer:
    """An actor and its optimiser, Adam.

    One step lowers the mean over examples of ``-log(1e-20 + s) * R`` for scores that are exponentials, and of
    ``-s * R`` for sigmoids (s: score, R: reward), as the authors of DDS do.

    Args:
        actor: what is trained, in its place.
        lr: learning rate.
        average: replaces every tensor of a list by its mean over all processes, in place; called once in every step,
            so all processes have to take as many steps. It gets the gradients of the *sum* over the examples and last
            their number, so that processes count by how many examples they have. ``None``: there is one process.
    """

    def __init__(
        self, actor: InstanceActor, lr: float, average: Callable[[Sequence[Tensor]], None] | None = None
    ) -> None:
        self.actor = actor
        self._lr = lr
        self._average = average
        self._trained = [parameter for parameter in actor.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(self._trained, lr=lr)

    def step(self, source: Tensor, target: Tensor, rewards: Tensor) -> None:
        """Learn from a batch; from nothing if no process has a finite reward.

        Args:
            source: tokens, int64 (B, S).
            target: tokens, int64 (B, T).
            rewards: (B,); examples whose reward is infinite or NaN are left out.
        """
        usable = rewards.isfinite()
        gradients = self._gradients_of_sum(source[usable], target[usable], rewards[usable])
        count = usable.sum().to(self._trained[0])
        if self._average is not None:
            self._average([*gradients, count])
        if count == 0:
            return
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient / count
        self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.enable_grad()
    def _gradients_of_sum(self, source: Tensor, target: Tensor, rewards: Tensor) -> list[Tensor]:
        if len(rewards) == 0:
            return [torch.zeros_like(parameter) for parameter in self._trained]
        logits = self.actor.logits(source, target)
        # logaddexp is log(1e-20 + exp(x)), also where exp(x) is too large for float32.
        exponential = self.actor.score_type == "exp"
        gains = logits.logaddexp(logits.new_tensor(_LOG_LEAST)) if exponential else logits.sigmoid()
        return list(torch.autograd.grad(-(gains * rewards.to(gains)).sum(), self._trained))

    def state_dict(self) -> dict[str, Any]:
        """Parameters and optimiser: tensors and plain Python."""
        return {"actor": dict(self.actor.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned, with the learning rate given here.

        Raises:
            ConfigurationError: it is of an actor of another kind or size.
        """
        try:
            self.actor.load_state_dict(state["actor"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(
                "the checkpoint holds an actor of another kind or size than --data-actor, --data-actor-embed-dim and "
                "the dictionaries ask for: repeat the settings it was trained with, or start in another --save-dir"
            ) from error
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr
