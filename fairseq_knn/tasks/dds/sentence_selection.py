"""Leaving training sentences out: at random, or by the scores of an actor that learns beside the model (DDS)."""

import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from fairseq_knn.sampling.filtering import keep_best, keep_random, keep_random_by_length
from fairseq_knn.sampling.instance_actors import INSTANCE_ACTORS, InstanceActorSettings, make_instance_actor
from fairseq_knn.sampling.instance_reward import instance_rewards
from fairseq_knn.sampling.instance_training import InstanceActorTrainer
from fairseq_knn.tasks.dds.language import Language
from fairseq_knn.tasks.dds.language_gradients import LanguageGradients, drawn
from fairseq_knn.tasks.dds.packing import Packing
from fairseq_knn.tasks.dds.random_streams import Stream, generator
from fairseq_knn.tasks.processes import mean_of_processes, place_and_number, sum_of_processes
from fairseq_knn.undisturbed import undisturbed

logger = logging.getLogger("fairseq_knn")


class SentenceSelection:
    """What is left out, and from when on.

    Args:
        args: settings.
        source, target: dictionaries.
        model: that is trained; the actor is put where it is.
    """

    def __init__(self, args: Namespace, source: Dictionary, target: Dictionary, model: Any) -> None:
        self._args = args
        self._padding = target.pad()
        self._trainer: InstanceActorTrainer | None = None
        if args.data_actor in INSTANCE_ACTORS:
            settings = InstanceActorSettings(
                source_vocabulary=len(source),
                target_vocabulary=len(target),
                padding=target.pad(),
                embed_dim=args.data_actor_embed_dim,
                score_type=args.out_score_type,
                train_embeddings=bool(args.data_actor_embed_grad),
                model_embeddings=(model.encoder.embed_tokens, model.decoder.embed_tokens)
                if args.data_actor_model_embed
                else None,
                seed=args.seed,
            )
            actor = make_instance_actor(args.data_actor, settings).to(next(model.parameters()).device)
            self._trainer = InstanceActorTrainer(actor, args.data_actor_lr, _average)

    # --- the actor --------------------------------------------------------------------------------

    @property
    def learns(self) -> bool:
        """Whether there is an actor."""
        return self._trainer is not None

    def learn(
        self,
        sample: Mapping[str, Any],
        gradients: LanguageGradients,
        development: Sequence[Language],
        key: tuple[int, ...],
        ignored: bool,
    ) -> None:
        """Let the actor learn from a batch: a sentence is rewarded as far as a step on it helps development data.

        Args:
            sample: the batch, where the model is.
            gradients: of the model as it is now.
            development: languages of which one is drawn.
            key: of the random numbers: update of the model, batch within it.
            ignored: whether this process has the batch only because others have one.
        """
        assert self._trainer is not None
        if ignored:
            source, target = _sides(sample)
            self._trainer.step(source[:0], target[:0], source.new_zeros(0).float())
            return
        random = generator(self._args.seed, Stream.DEVELOPMENT, *key, place_and_number()[0])
        language = development[int(random.integers(len(development)))]
        sentences = drawn(language, self._args.loss_steps, random)
        model = gradients.model
        with undisturbed(model):
            towards = gradients.compute(language.dataset, sentences, int(random.integers(2**31)))
            rewards = instance_rewards(gradients.parameters, lambda: self._losses(model, sample), towards)
        # Early in training nearly all rewards are positive, which would drive all scores to their upper end. They count
        # against each other.
        self._trainer.step(*_sides(sample), rewards - rewards[rewards.isfinite()].mean())

    def _losses(self, model: Any, sample: Mapping[str, Any]) -> Tensor:
        """Mean cross-entropy per token of every sentence, nats, (B,)."""
        log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True, sample=sample)
        target = sample["target"]
        real: Tensor = target.ne(self._padding)
        losses = -log_probs.view(*target.shape, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        mean: Tensor = (losses.float() * real).sum(dim=1) / real.sum(dim=1)
        return mean

    # --- what is left out -------------------------------------------------------------------------

    def due(self, epoch: int) -> bool:
        """Whether sentences are left out by now."""
        return bool(self._args.data_filter_percentage > 0 and epoch >= self._args.select_by_dds_epoch)

    def kept(self, languages: Sequence[Language], packing: Packing) -> list[NDArray[np.int64]]:
        """For each language, places of those of its members that go on being read.

        Args:
            languages: what is read.
            packing: how sentences become batches.
        """
        share = self._args.data_filter_percentage
        kept = []
        for number, language in enumerate(languages):
            random = generator(self._args.seed, Stream.FILTER, number)
            count = len(language.members)
            if self._args.random_data_filter:
                kept.append(keep_random(count, share, random))
            elif self._args.random_data_filter_by_len:
                lengths = language.dataset.sizes[language.members]
                kept.append(keep_random_by_length(lengths[:, 0] if lengths.ndim > 1 else lengths, share, random))
            else:
                kept.append(keep_best(self._scores(language, packing), share))
            logger.info(f"{language.name}: {len(kept[-1]):,} of {count:,} training sentences are kept")
        return kept

    @torch.no_grad()
    def _scores(self, language: Language, packing: Packing) -> NDArray[np.float64]:
        """What orders the members by the actor's scores, (N,); the processes share the work."""
        assert self._trainer is not None
        actor = self._trainer.actor
        rank, world = place_and_number()
        device = actor.output.weight.device
        scores = torch.zeros(len(language.members), dtype=torch.float64, device=device)
        batches = packing.pack(language.dataset, language.members)[rank::world]
        with undisturbed(actor):
            for batch in tqdm(batches, desc=f"scoring {language.name}", disable=rank > 0, mininterval=10):
                sample = language.dataset.collater([language.dataset[int(index)] for index in batch])
                places = torch.from_numpy(np.searchsorted(language.members, sample["id"].numpy())).to(device)
                scores[places] = actor.logits(*(side.to(device) for side in _sides(sample))).double()
        return sum_of_processes(scores).cpu().numpy()

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the actor has learned; which sentences are left out is in the iterator's state."""
        return {} if self._trainer is None else {"kind": self._args.data_actor, **self._trainer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._trainer is not None and state:
            self._trainer.load_state_dict(state)


def _sides(sample: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    return sample["net_input"]["src_tokens"], sample["target"]


def _average(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        mean_of_processes(tensor)
