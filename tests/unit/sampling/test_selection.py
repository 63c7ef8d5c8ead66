"""Selection as a whole: a fifth of the targets belong to other sources, and what is dropped is mostly these.

Translation is word by word into a bag of words (IBM model 1: Brown et al. 1993), so that its noisy optimum is known:
there the mean reward of a batch is zero, above zero for right targets and below for wrong ones. The actor starts when
that is nearly reached: before, rewards are positive for nearly all, and drive all scores to 1.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fairseq_knn.sampling.filtering import keep_best
from fairseq_knn.sampling.instance_actors import InstanceActorSettings, make_instance_actor
from fairseq_knn.sampling.instance_reward import instance_rewards
from fairseq_knn.sampling.instance_training import InstanceActorTrainer

WORDS, LONGEST, PADDING = 6, 4, 0
SENTENCES, WRONG, BATCH = 2000, 0.2, 64


@dataclass
class Corpus:
    source: Tensor
    target: Tensor
    wrong: Tensor


def corpus(generator: torch.Generator, dictionary: Tensor, size: int, wrong: float = 0.0) -> Corpus:
    """Sentences of 3 or 4 words; the wrong ones have exchanged their targets."""
    lengths = torch.randint(3, LONGEST + 1, (size, 1), generator=generator)
    source = torch.randint(1, WORDS + 1, (size, LONGEST), generator=generator)
    source = source.masked_fill(torch.arange(LONGEST) >= lengths, PADDING)
    target = dictionary[source]
    chosen = torch.randperm(size, generator=generator)[: int(wrong * size)]
    target[chosen] = target[chosen.roll(1)]
    return Corpus(source, target, torch.zeros(size, dtype=torch.bool).index_fill(0, chosen, True))


def losses(table: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Sum over a sentence's words, (B,)."""
    real = source.ne(PADDING).unsqueeze(-1)
    probabilities = (table.softmax(dim=-1)[source] * real).sum(dim=1) / real.sum(dim=1)
    return -(probabilities.gather(1, target).log() * target.ne(PADDING)).sum(dim=1)


def removed(seed: int) -> float:
    """The share of the wrong sentences that are among the fifth with the lowest scores."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(WORDS, generator=generator)])
    train = corpus(generator, dictionary, SENTENCES, WRONG)
    development = corpus(generator, dictionary, 200)
    table = nn.Parameter(torch.zeros(WORDS + 1, WORDS + 1))
    optimizer = torch.optim.SGD([table], lr=0.5)
    settings = InstanceActorSettings(WORDS + 1, WORDS + 1, PADDING, seed=seed)
    trainer = InstanceActorTrainer(make_instance_actor("transformer", settings), lr=0.001)

    def loss_of(of: Corpus) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(of.source), (BATCH,), generator=generator)
        source, target = of.source[rows], of.target[rows]
        return source, target, losses(table, source, target)

    for step in range(-200, 130):
        source, target, loss = loss_of(train)
        if step >= 0:
            gradient = torch.autograd.grad(loss_of(development)[2].mean(), [table])
            rewards = instance_rewards([table], lambda s=source, t=target: losses(table, s, t), gradient)
            trainer.step(source, target, rewards)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    with torch.no_grad():
        scores = trainer.actor(train.source, train.target)
    dropped = np.setdiff1d(np.arange(SENTENCES), keep_best(scores.numpy(), WRONG))
    return train.wrong[dropped].sum().item() / train.wrong.sum().item()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wrong_targets_are_dropped(seed: int) -> None:
    """Twice as often as by chance, which would drop a fifth of them."""
    assert removed(seed) >= 0.4
