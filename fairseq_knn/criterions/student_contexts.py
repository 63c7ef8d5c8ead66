"""The prefixes that student and expert continue."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from fairseq_knn.criterions.imitation_config import ImitationConfig
from fairseq_knn.imitation.contexts import contexts
from fairseq_knn.imitation.drawing import student_sentences
from fairseq_knn.imitation.net_inputs import joined, rows_of
from fairseq_knn.imitation.rollout import roll_out

POOL, PLACE = "pool", "place"  # in a batch: those that are decoded with it, and its number among them

Sample = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """
    Args:
        prefix: what is continued, int64 (B, T), padded on the right.
        own: which rows are the student's own translations, bool (B,).
        weight: of the loss after it.
    """

    prefix: Tensor
    own: Tensor
    weight: float


class StudentContexts:
    """Draws whose prefix is the student's own, and decodes these sentences and no others.

    A hypothesis has no more tokens than the longest reference of its batch, so imitation needs no more memory than the
    references do.

    Args:
        config: settings of imitation.
        pad, eos: symbols of the target dictionary.
    """

    def __init__(self, config: ImitationConfig, pad: int, eos: int) -> None:
        self._config, self._pad, self._eos = config, pad, eos
        self._pooled: dict[tuple[int, int], dict[int, Tensor]] = {}  # hypotheses by update and place of the batch

    def of(self, model: nn.Module, sample: Sample, beta: float, update: int) -> list[Context]:
        """What is continued in a batch; more than one where losses are mixed.

        Args:
            model: the student, in training.
            sample: the batch.
            beta: probability, or weight, of a reference.
            update: number of the update.
        """
        reference = sample["net_input"]["prev_output_tokens"]
        none = torch.zeros(len(reference), dtype=torch.bool, device=reference.device)
        if beta == 1.0:
            return [Context(reference, none, 1.0)]
        both = str(self._config.kd_mixing) == "loss" and beta > 0.0
        hypotheses = self._hypotheses(model, sample, beta, update)
        own = none.clone()
        own[list(hypotheses)] = True
        mixed = Context(contexts(reference, hypotheses, self._pad, self._eos), own, 1.0 - beta if both else 1.0)
        return [Context(reference, none, beta), mixed] if both else [mixed]

    def _drawn(self, sample: Sample, beta: float, update: int) -> Tensor:
        """Rows whose prefix is the student's, int64 (n,)."""
        sentences = sample["sentence"]
        if str(self._config.kd_mixing) == "loss":
            return torch.arange(len(sentences), device=sentences.device)
        return student_sentences(sentences, beta, self._config.seed, update).nonzero().squeeze(1)

    def _hypotheses(self, model: nn.Module, sample: Sample, beta: float, update: int) -> dict[int, Tensor]:
        place = sample.get(PLACE)
        if place is None:
            return self._decode(model, [sample], beta, update)[0]
        if place == 0:
            pool = [sample, *sample[POOL]]
            decoded = self._decode(model, pool, beta, update)
            self._pooled = {(update, number): found for number, found in enumerate(decoded)}
        pooled = self._pooled.pop((update, place), None)
        # Where memory was not enough for the first of a pool, stock goes on with the next.
        return self._decode(model, [sample], beta, update)[0] if pooled is None else pooled

    def _decode(self, model: nn.Module, samples: list[Sample], beta: float, update: int) -> list[dict[int, Tensor]]:
        """For each batch the hypotheses of the rows that were drawn, all decoded at once."""
        drawn = [self._drawn(sample, beta, update) for sample in samples]
        busy = [number for number, rows in enumerate(drawn) if len(rows)]
        if not busy:
            return [{} for _ in samples]
        inputs = [rows_of(samples[number]["net_input"], drawn[number], self._pad) for number in busy]
        source, place = (inputs[0], None) if len(inputs) == 1 else joined(inputs, self._pad)
        references = [each["prev_output_tokens"] for each in inputs]
        limits = torch.cat([each.new_full((len(each),), each.size(1) - 1) for each in references])
        given = self._config.ignore_prefix_size
        forced = torch.cat([_first(each, given, self._pad) for each in references]) if given else None
        if forced is not None:  # a reference that is shorter is all that is given
            given_ones = forced.ne(self._pad)
            limits = limits.where(given_ones.all(dim=1), given_ones.sum(dim=1))
        if place is not None:
            order = place.argsort()
            limits, forced = limits[order], None if forced is None else forced[order]
        found = roll_out(
            unwrapped(model),
            source,
            limits,
            eos=self._eos,
            pad=self._pad,
            forced=forced,
            top_k=self._config.kd_rollout_topk,
            generator=self._generator(samples[0], update),
        )
        if place is not None:
            found = [found[row] for row in place.tolist()]
        result: list[dict[int, Tensor]] = []
        for rows in drawn:
            result.append(dict(zip(rows.tolist(), found[: len(rows)], strict=True)))
            found = found[len(rows) :]
        return result

    def _generator(self, sample: Sample, update: int) -> torch.Generator | None:
        """The same for the same batch of the same update, whatever has been drawn before."""
        if not self._config.kd_rollout_topk:
            return None
        sentences = sample["sentence"]
        seed = hash((self._config.seed, update, *sentences.tolist())) % 2**63
        return torch.Generator(device=sentences.device).manual_seed(seed)


def _first(reference: Tensor, count: int, pad: int) -> Tensor:
    """The first tokens of references, after the symbol that begins them, int64 (B, count)."""
    return F.pad(reference[:, 1 : 1 + count], (0, max(0, 1 + count - reference.size(1))), value=pad)


def unwrapped(model: nn.Module) -> Any:
    """The model itself, within what distributed training wraps it in."""
    while not isinstance(model, BaseFairseqModel) and isinstance(getattr(model, "module", None), nn.Module):
        model = model.module  # type: ignore[assignment]
    return model
