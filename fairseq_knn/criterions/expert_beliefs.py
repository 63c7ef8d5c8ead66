"""What the expert says about a batch: asked now, or read from what it said before."""

from typing import Any

import torch
from torch import Tensor

from fairseq_knn.criterions.imitation_config import ImitationConfig, tokens_kept
from fairseq_knn.imitation.beliefs import Belief, SparseBelief
from fairseq_knn.imitation.contexts import counted
from fairseq_knn.imitation.expert_cache import ExpertCache
from fairseq_knn.imitation.net_inputs import rows_of
from fairseq_knn.models.expert import Believe, Expert

FILLER = "filler"  # in a batch: it fills up an update, and counts nothing


class ExpertBeliefs:
    """
    Args:
        expert: that is asked.
        config: settings of imitation.
        pad: symbol of padding.

    Attributes:
        cache: what the expert says after references of the training data, if that is kept.
    """

    def __init__(self, expert: Expert, config: ImitationConfig, pad: int) -> None:
        self._expert, self._config, self._pad = expert, config, pad
        self.cache: ExpertCache | None = None

    @property
    def fingerprint(self) -> str:
        """Of the expert, before it is asked."""
        return self._expert.fingerprint

    @property
    def longest(self) -> tuple[int | None, int | None]:
        """Greatest lengths of what the expert reads and continues."""
        return self._expert.longest

    @property
    def kept(self) -> int:
        """How many of its likeliest tokens a cache has."""
        return tokens_kept(self._config)

    def can_judge(self, sample: dict[str, Any]) -> bool:
        """Whether there is something in a batch that the expert reads."""
        return str(self._config.kd_expert_input) == "audio" or "expert_input" in sample

    def source(self, sample: dict[str, Any]) -> dict[str, Any]:
        """What the expert's encoder is fed with."""
        if str(self._config.kd_expert_input) == "audio":
            return {name: sample["net_input"][name] for name in ("src_tokens", "src_lengths")}
        source: dict[str, Any] = sample["expert_input"]
        return source

    def of(self, sample: dict[str, Any], prefix: Tensor, own: Tensor | None = None) -> Believe:
        """What the expert believes after prefixes of a batch.

        Args:
            sample: the batch.
            prefix: int64 (B, T).
            own: which rows are no references, bool (B,); ``None`` if the cache is not to be looked at.
        """
        if self.cache is None or own is None or FILLER in sample:
            return self._asked(self.source(sample), prefix)
        return self._remembered(self.cache, sample, prefix, own)

    def _asked(self, source: dict[str, Any], prefix: Tensor) -> Believe:
        return self._expert.beliefs(source, prefix, str(self._config.kd_expert_output), self.kept)

    def _remembered(self, cache: ExpertCache, sample: dict[str, Any], prefix: Tensor, own: Tensor) -> Believe:
        """References from the cache; the expert is asked about the other rows, if there are any."""
        tokens = prefix.new_zeros((*prefix.shape, self.kept))
        probabilities = torch.zeros(tokens.shape, device=prefix.device)
        real = counted(prefix, self._pad)
        references = real & ~own[:, None]
        kept_tokens, kept_probabilities, _ = cache.beliefs(sample["sentence"][~own].tolist())
        tokens[references] = kept_tokens.to(prefix.device)
        probabilities[references] = kept_probabilities.to(prefix.device)
        rows = own.nonzero().squeeze(1)
        if len(rows):
            part = prefix[rows]
            asked = self._asked(rows_of(self.source(sample), rows, self._pad), part)
            mask = counted(part, self._pad)
            said = asked(mask.flatten().nonzero().squeeze(1))
            assert isinstance(said, SparseBelief)
            others = real & own[:, None]
            tokens[others], probabilities[others] = said.tokens, said.probabilities
        tokens, probabilities = tokens.flatten(0, 1), probabilities.flatten(0, 1)

        def believe(rows: Tensor) -> Belief:
            return SparseBelief(tokens[rows], probabilities[rows])

        return believe
