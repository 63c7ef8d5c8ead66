"""MultiDDS under stock fairseq-train: rewards of languages, and what the data actor makes of them."""

import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fairseq.logging import metrics
from numpy.typing import NDArray
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors import ActorSettings, LanguageActor, make_actor
from fairseq_knn.sampling.displacement import displaced
from fairseq_knn.sampling.gradients import Gradient, similarity, similarity_matrix, weighted_sum
from fairseq_knn.sampling.round_log import Round
from fairseq_knn.sampling.utility import RewardBaseline, row_weights
from fairseq_knn.tasks.dds.language import Language
from fairseq_knn.tasks.dds.language_gradients import LanguageGradients, drawn
from fairseq_knn.tasks.dds.random_streams import Stream, generator
from fairseq_knn.tasks.processes import mean_of_processes, place_and_number
from fairseq_knn.undisturbed import undisturbed

logger = logging.getLogger("fairseq_knn")

# How far MultiDDS looks ahead, in multiples of the gradient of the mean loss. (The authors' program takes 0.001 times
# the gradient of the sum over a thousand tokens, uphill. Downhill, a step of that length is far beyond the bottom.)
LOOK_AHEAD = 0.001
# Development gradients that MultiDDS-S keeps at a time take no more than this; of a larger model or more languages it
# computes those of the training languages again for every further block.
GRADIENT_BYTES = 2 << 30
# How many similarities are figures of fairseq's log and TensorBoard: of ten languages with each other. Of fifty they
# would be 2,500 in every line; then they are in the line of the round alone.
SHOWN = 100


class DataActorTraining:
    """The data actor of a training, and the probabilities it gives.

    Args:
        args: settings.
        training: names of the languages that are sampled.
        development: names of those that rewards are measured on.
        initial: the probabilities to begin with, float64 (n,).
        weights: of the development languages, float64 (K,); ``None``: all count the same.
        embeddings: vectors of the languages for the actor ``lan``, float32 (n, e).
    """

    def __init__(
        self,
        args: Namespace,
        training: Sequence[str],
        development: Sequence[str],
        initial: NDArray[np.float64],
        weights: Tensor | None = None,
        embeddings: Tensor | None = None,
    ) -> None:
        self._args, self._weights = args, weights
        self._training, self._development = list(training), list(development)
        self._every = args.update_language_sampling
        self._actor: LanguageActor = make_actor(
            args.data_actor,
            initial,
            ActorSettings(
                lr=args.data_actor_lr,
                optim_steps=args.data_actor_optim_step,
                scale_reward=args.scale_reward,
                embed_dim=args.data_actor_embed_dim,
                lan_embed_dim=args.lan_embed_dim,
                embeddings=embeddings,
                seed=args.seed,
            ),
        )
        self._actor.check_development(len(development))
        self._baseline = RewardBaseline() if args.baseline else None
        self._rounds = 0
        self.updates = 0

    # --- sampling ---------------------------------------------------------------------------------

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return self._actor.probabilities

    def batches_until_change(self, epoch: int) -> int:
        frequencies = self._args.update_freq
        every = frequencies[min(epoch, len(frequencies)) - 1]
        return int((self._every - self.updates % self._every) * every)

    # --- rounds -----------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether the actor learns after the update that was just made."""
        return bool(self.updates % self._every == 0)

    def log(self) -> None:
        """Give fairseq the probabilities in force."""
        for name, probability in zip(self._training, self.probabilities, strict=True):
            metrics.log_scalar(f"dds_p/{name}", float(probability), weight=0, priority=900, round=4)

    def round(
        self, gradients: LanguageGradients, training: Sequence[Language], development: Sequence[Language], epoch: int
    ) -> None:
        """Measure the rewards and let the actor learn from them.

        Args:
            gradients: of the model as it is now.
            training: the languages that are sampled.
            development: the languages that rewards are measured on.
            epoch: of the training.
        """
        started = time.perf_counter()
        self._rounds += 1
        measuring = _Measuring(self._args, gradients, training, development, self._rounds)
        utility = self._args.utility_type if epoch >= self._args.switch_obj_epoch else "ave"
        with undisturbed(gradients.model):
            losses = mean_of_processes(measuring.losses())
            weights = row_weights(losses, utility, self._weights)
            measure = measuring.multidds_s if self._args.data_actor_multilin else measuring.multidds
            matrix, rewards = map(mean_of_processes, measure(weights))
        self._learn(matrix.cpu(), losses.cpu(), rewards.cpu(), time.perf_counter() - started)

    def _learn(self, matrix: Tensor, losses: Tensor, rewards: Tensor, seconds: float) -> None:
        if not (rewards.isfinite().all() and matrix.isfinite().all()):
            logger.warning(
                f"update {self.updates}: a reward is not a finite number ("
                + ", ".join(
                    f"{name} {reward:.3g}" for name, reward in zip(self._training, rewards.tolist(), strict=True)
                )
                + "): the data actor keeps its probabilities"
            )
            return
        counted = rewards if self._baseline is None else self._baseline.subtract(rewards)
        self._actor.update(counted, matrix)
        for name, reward in zip(self._training, rewards.tolist(), strict=True):
            metrics.log_scalar(f"dds_reward/{name}", reward, weight=0, priority=910, round=4)
        shown = matrix if matrix.numel() <= SHOWN else matrix[:0]
        for dev, row in zip(self._development[: len(shown)], shown.tolist(), strict=True):
            for name, value in zip(self._training, row, strict=True):
                metrics.log_scalar(f"dds_similarity/{dev}/{name}", value, weight=0, priority=920, round=3)
        done = Round(
            update=self.updates,
            round=self._rounds,
            seconds=seconds,
            p=_named(self._training, self.probabilities.tolist()),
            reward=_named(self._training, rewards.tolist()),
            development_loss=_named(self._development, losses.tolist()),
            similarity={
                dev: _named(self._training, row) for dev, row in zip(self._development, matrix.tolist(), strict=True)
            },
        )
        logger.info(done.line())

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything of a run that goes on: plain numbers, strings and tensors."""
        return {
            "languages": self._training,
            "kind": self._args.data_actor,
            "rounds": self._rounds,
            "updates": self.updates,
            "actor": self._actor.state_dict(),
            "baseline": None if self._baseline is None else self._baseline.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where the run that saved this was.

        Raises:
            ConfigurationError: its actor is of other languages, or of another kind.
        """
        for what, theirs, ours in (
            ("of the languages", ", ".join(state["languages"]), ", ".join(self._training)),
            ("--data-actor", state["kind"], self._args.data_actor),
        ):
            if theirs != ours:
                raise ConfigurationError(
                    f"the checkpoint in --save-dir has an actor {what} {theirs}, but this run has one {what} {ours}: "
                    "choose another --save-dir, or those settings"
                )
        self._rounds, self.updates = state["rounds"], state["updates"]
        self._actor.load_state_dict(state["actor"])
        if self._baseline is not None and state["baseline"] is not None:
            self._baseline.load_state_dict(state["baseline"])
        shown = ", ".join(f"{name} {p:.4f}" for name, p in zip(self._training, self.probabilities, strict=True))
        logger.info(f"the data actor goes on after {self._rounds} rounds, with the probabilities {shown}")


def _named(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return dict(zip(names, values, strict=True))


class _Measuring:
    """Losses and similarities of one round.

    Args:
        args: settings.
        gradients: compute them.
        training, development: the languages.
        number: of the round.
    """

    def __init__(
        self,
        args: Namespace,
        gradients: LanguageGradients,
        training: Sequence[Language],
        development: Sequence[Language],
        number: int,
    ) -> None:
        self._args, self._gradients = args, gradients
        self._training, self._development = training, development
        random = generator(args.seed, Stream.ROUNDS, number, place_and_number()[0])
        self._seed = int(random.integers(2**31))
        # The same sentences whenever a language is looked at in this round.
        self._sentences = {
            id(language): drawn(language, args.loss_steps, random) for language in (*training, *development)
        }

    def _compute(self, language: Language) -> Gradient:
        return self._gradients.compute(language.dataset, self._sentences[id(language)], self._seed)

    def losses(self) -> Tensor:
        """Of the development languages, float64 (K,)."""
        losses = [
            self._gradients.loss(language.dataset, self._sentences[id(language)], self._seed)
            for language in self._development
        ]
        return torch.tensor(losses, dtype=torch.float64, device=self._gradients.device)

    def multidds_s(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities (K, n), and rewards (n,): their weighted means (Wang et al. 2020, section 4.2).

        Args:
            weights: of the development languages, float64 (K,), sum 1.
        """
        size = sum(4 * parameter.numel() for parameter in self._gradients.parameters)
        matrix = similarity_matrix(
            [lambda language=language: self._compute(language) for language in self._development],  # type: ignore[misc]
            [lambda language=language: self._compute(language) for language in self._training],  # type: ignore[misc]
            self._args.grad_sim,
            max(1, GRADIENT_BYTES // size),
        )
        return matrix, weights.to(matrix.device) @ matrix

    def multidds(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities (K, n), and rewards (n,): of each language's gradient with that of all development languages
        together, after a step down the former (Wang et al. 2020, equation 6).

        Args:
            weights: as above.
        """
        columns, rewards = [], []
        for language in self._training:
            own = self._compute(language)
            together: Gradient | None = None
            column = []
            with displaced(self._gradients.parameters, own, -LOOK_AHEAD):
                for weight, development in zip(weights.tolist(), self._development, strict=True):
                    theirs = self._compute(development)
                    column.append(similarity(theirs, own, self._args.grad_sim))
                    together = weighted_sum(together, weight, theirs)
            assert together is not None
            columns.append(torch.stack(column))
            rewards.append(similarity(together, own, self._args.grad_sim))
        return torch.stack(columns, dim=1), torch.stack(rewards)
