"""Learning from what an expert says after prefixes of references and of the student's own (ImitKD, word-KD)."""

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from torch import Tensor, nn

from fairseq_knn.criterions.expert_beliefs import ExpertBeliefs
from fairseq_knn.criterions.imitation_config import ImitationConfig, check_imitation, schedule_of, tokens_kept
from fairseq_knn.criterions.student_contexts import StudentContexts
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.contexts import counted
from fairseq_knn.imitation.losses import ImitationLoss, imitation_loss

Sample = dict[str, Any]


class ImitationCriterion(FairseqCriterion):
    """Cross entropy between an expert and the student (Lin et al. 2020; Hubert, Sokolov and Riezler 2023).

    In training, expert and student continue the same prefixes: for each sentence that of its reference with probability
    beta, or else what the student itself decodes. In validation it is stock's cross entropy against the references.

    Attributes:
        config: its settings.
        update: number of updates so far, which the task says before every batch and after every update.
        updates: number of them in the whole training, which the task knows when it has the data.
        beliefs: what the expert says. Not a module, which would be trained, wrapped and written into every checkpoint.
    """

    def __init__(self, cfg: ImitationConfig, task: Any) -> None:
        super().__init__(task)
        check_imitation(cfg)
        if not hasattr(task, "expert_of"):
            raise ConfigurationError(
                f"imitation goes with --task speech_to_text_imitkd or translation_imitkd, but the task is "
                f"{type(task).__name__}, whose batches have nothing for the expert: change --task"
            )
        symbols = len(task.target_dictionary)
        if (kept := tokens_kept(cfg)) > symbols:
            raise ConfigurationError(
                f"--kd-topk is {kept:,}, but the dictionary has {symbols:,} symbols: lower it, or choose "
                "--kd-expert-output full"
            )
        self.config = cfg
        self.schedule = schedule_of(cfg)
        self.update = 0
        self.updates: int | None = cfg.max_update if cfg.max_update > 0 else None
        self.beliefs = ExpertBeliefs(task.expert_of(cfg), cfg, self.padding_idx)
        self._contexts = StudentContexts(cfg, self.padding_idx, task.target_dictionary.eos())

    def plan(self, batches: int) -> None:
        """Say how long the training is, if ``--max-epoch`` does.

        Args:
            batches: of an epoch, in one process.
        """
        if self.config.max_epoch > 0:
            settings = self.config
            self.updates = updates_of(
                batches, settings.max_epoch, settings.update_freq, skip_remainder=bool(settings.skip_remainder_batch)
            )

    @property
    def beta(self) -> float:
        """Probability of a reference prefix now."""
        return self.schedule.at(self.update / self.updates if self.updates else 0.0)

    def forward(self, model: nn.Module, sample: Sample, reduce: bool = True) -> tuple[Tensor, Any, dict[str, Any]]:
        """
        Returns:
            Loss, in nats and summed; what it is to be divided by; figures to log.
        """
        return self._imitate(model, sample) if model.training else self._validate(model, sample)

    def _imitate(self, model: nn.Module, sample: Sample) -> tuple[Tensor, Any, dict[str, Any]]:
        beta = self.beta
        losses, positions = [], 0.0
        figures = _Figures()
        for context in self._contexts.of(model, sample, beta, self.update):
            net_output = model(**{**sample["net_input"], "prev_output_tokens": context.prefix})
            rows = counted(context.prefix, self.padding_idx, self.config.ignore_prefix_size).flatten()
            rows = rows.nonzero().squeeze(1)
            believe = self.beliefs.of(sample, context.prefix, context.own)
            result = imitation_loss(net_output[0].flatten(0, 1), rows, believe)
            losses.append(context.weight * result.loss)
            positions += context.weight * len(rows)
            figures.count(result, rows, context.own, sample["target"], context.prefix.size(1))
            figures.student += context.weight * context.own.sum()
        loss = sum(losses[1:], losses[0])
        if self.config.sentence_avg:
            size: Any = len(sample["target"])
        else:
            size = sample["ntokens"] if str(self.config.kd_normalize) == "target" else positions
        logged = {
            **self._logged(loss, size, sample),
            "kd_loss": loss.detach(),
            "kd_positions": positions,
            "kd_beta": beta * len(sample["target"]),
            "kd_student": figures.student,
            **figures.choices(self.config.report_accuracy),
        }
        return loss, size, logged

    def _validate(self, model: nn.Module, sample: Sample) -> tuple[Tensor, Any, dict[str, Any]]:
        net_output = model(**sample["net_input"])
        given = self.config.ignore_prefix_size
        log_probs = model.get_normalized_probs(net_output, log_probs=True)[:, given:].flatten(0, 1)  # type: ignore[operator]
        target = sample["target"][:, given:].flatten()
        loss = F.nll_loss(log_probs, target, ignore_index=self.padding_idx, reduction="sum")
        size = len(sample["target"]) if self.config.sentence_avg else sample["ntokens"]
        logged = {**self._logged(loss, size, sample), "nll_loss": loss.detach()}
        figures = _Figures()
        positions, imitated = 0, loss.new_zeros(())
        if self.beliefs.can_judge(sample):
            prefix = sample["net_input"]["prev_output_tokens"]
            rows = counted(prefix, self.padding_idx, given).flatten().nonzero().squeeze(1)
            result = imitation_loss(net_output[0].flatten(0, 1), rows, self.beliefs.of(sample, prefix))
            none = prefix.new_zeros(len(prefix)).bool()
            figures.count(result, rows, none, sample["target"], prefix.size(1))
            positions, imitated = len(rows), result.loss
        logged |= {"kd_loss": imitated, "kd_positions": positions, "kd_beta": self.beta * len(sample["target"])}
        return loss, size, logged | figures.choices(self.config.report_accuracy)

    @staticmethod
    def _logged(loss: Tensor, size: Any, sample: Sample) -> dict[str, Any]:
        return {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": len(sample["target"]),
            "sample_size": size,
        }

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Losses in bits; ``kd_agreement`` is the share of positions after reference prefixes where the first choices
        of student and expert are the same."""

        def total(name: str) -> Any:
            return utils.item(sum(log.get(name, 0) for log in logging_outputs))

        size, tokens, sentences = total("sample_size"), total("ntokens"), total("nsentences")
        metrics.log_scalar("loss", total("loss") / size / math.log(2), size, round=3)
        if any("nll_loss" in log for log in logging_outputs):  # perplexity is of references
            metrics.log_scalar("nll_loss", total("nll_loss") / tokens / math.log(2), tokens, round=3)
            metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        else:
            metrics.log_scalar("kd_student_share", total("kd_student") / sentences, sentences, round=3)
        metrics.log_scalar("kd_beta", total("kd_beta") / sentences, sentences, round=4)
        if positions := total("kd_positions"):
            metrics.log_scalar("kd_loss", total("kd_loss") / positions / math.log(2), positions, round=3)
        if compared := total("kd_compared"):
            metrics.log_scalar("kd_agreement", total("kd_agreed") / compared, compared, round=4)
            if any("n_correct" in log for log in logging_outputs):
                metrics.log_scalar("accuracy", 100.0 * total("n_correct") / compared, compared, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """So processes need not gather them, which on CPUs stock cannot."""
        return True


def updates_of(batches: int, epochs: int, update_freq: Sequence[int], *, skip_remainder: bool = False) -> int:
    """Updates in a number of epochs.

    Args:
        batches: of an epoch, in one process.
        epochs: their number.
        update_freq: batches of an update in the first epochs; that of the last one is kept.
        skip_remainder: batches at the end of an epoch that are too few for an update are left out
            (``--skip-remainder-batch``).
    """
    whole = math.floor if skip_remainder else math.ceil
    return sum(whole(batches / update_freq[min(epoch, len(update_freq) - 1)]) for epoch in range(epochs))


class _Figures:
    """What first choices after references tell, summed."""

    def __init__(self) -> None:
        self.student: Any = 0.0
        self._agreed: Any = 0
        self._compared: Any = 0
        self._correct: Any = 0

    def count(self, result: ImitationLoss, rows: Tensor, own: Tensor, target: Tensor, width: int) -> None:
        """
        Args:
            result: choices at n positions.
            rows: which, of B * width, int64 (n,).
            own: rows of the batch that are no references, bool (B,).
            target: int64 (B, T).
            width: number of columns of the prefixes.
        """
        sentence = rows // width
        after_reference = ~own[sentence]
        chosen = result.student_choice[after_reference]
        self._agreed += chosen.eq(result.expert_choice[after_reference]).sum()
        self._compared += after_reference.sum()
        self._correct += chosen.eq(target[sentence[after_reference], (rows % width)[after_reference]]).sum()

    def choices(self, accuracy: bool) -> dict[str, Any]:
        counts = {"kd_agreed": self._agreed, "kd_compared": self._compared}
        return counts | {"n_correct": self._correct} if accuracy else counts
