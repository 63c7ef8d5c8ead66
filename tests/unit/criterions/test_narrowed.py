"""Stock cross-entropies give the same from few columns as from logits over V tokens."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq.criterions.adaptive_loss import AdaptiveLoss
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from torch import Tensor, nn

from fairseq_knn.combiners import AdaptiveCombiner, mix
from fairseq_knn.combiners.narrowed import mix_narrowed, narrow, narrowed_mixture
from fairseq_knn.criterions.narrowed import narrow_criterion
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.frozen_base import NarrowedOutput
from fairseq_knn.retrieval import Neighbours

V, K, D, PADDING = 23, 4, 5, 1
TASK = SimpleNamespace(target_dictionary=SimpleNamespace(pad=lambda: PADDING))
CRITERIONS: dict[str, Any] = {
    "plain": lambda: CrossEntropyCriterion(TASK, False),
    "plain, by sentence": lambda: CrossEntropyCriterion(TASK, True),
    "smoothed": lambda: LabelSmoothedCrossEntropyCriterion(TASK, False, 0.1, report_accuracy=True),
    "smoothed by nothing": lambda: LabelSmoothedCrossEntropyCriterion(TASK, False, 0.0, report_accuracy=True),
    "smoothed, prefix": lambda: LabelSmoothedCrossEntropyCriterion(TASK, False, 0.1, 2, report_accuracy=True),
    "smoothed, by sentence": lambda: LabelSmoothedCrossEntropyCriterion(TASK, True, 0.3, 1, report_accuracy=True),
}


class Whole(nn.Module):
    """A model that mixes over V tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.combiner = AdaptiveCombiner(K, V)
        self.target = torch.tensor([[4, 9, 2, 2], [7, 2, PADDING, PADDING], [5, 5, 2, PADDING]])
        self.alone = (2 * torch.randn(3, 4, V)).log_softmax(dim=-1)
        values = torch.randint(2, V, (3, 4, K))
        values[..., 2] = self.target
        ids = torch.arange(3 * 4 * K).view(3, 4, K)
        ids[0, 0, 2:] = -1
        ids[1, 1] = -1
        missing = ids < 0
        distances = (9 * torch.rand(3, 4, K)).sort(dim=-1).values.masked_fill(missing, torch.inf)
        self.found = Neighbours(distances, ids, values.masked_fill(missing, 0))
        self.query = torch.randn(3, 4, D)

    def forward(self) -> Any:
        mixed = mix(self.alone.clone(), self.found.values, self.combiner.mixture(self.query, self.found, self.alone))
        return mixed, None

    def get_normalized_probs(self, net_output: Any, log_probs: bool, sample: Any = None) -> Tensor:
        mixed: Tensor = net_output[0]
        return mixed

    def get_targets(self, sample: Any, net_output: Any) -> Tensor:
        return self.target


class Narrow(Whole):
    """The same model, with the columns alone."""

    def forward(self) -> Any:
        real = self.target.ne(PADDING)
        found = self.found.select(real.flatten().nonzero().squeeze(-1))
        narrowed = narrow(self.alone[real], self.target[real], found)
        neighbours = narrowed.name_columns(found)
        mixture = narrowed_mixture(self.combiner, self.query[real], neighbours, narrowed)
        return NarrowedOutput(mix_narrowed(narrowed, neighbours, mixture), real)


def sample(model: Whole) -> dict[str, Any]:
    return {"net_input": {}, "target": model.target, "ntokens": int(model.target.ne(PADDING).sum())}


@pytest.mark.parametrize("name", CRITERIONS)
def test_loss_figures_and_gradients(name: str) -> None:
    results = []
    for model in (Whole(), Narrow()):
        criterion = CRITERIONS[name]()
        if isinstance(model, Narrow):
            narrow_criterion(criterion, V)
        loss, size, logged = criterion(model, sample(model))
        loss.backward()
        gradients = {what: parameter.grad for what, parameter in model.named_parameters()}
        results.append((loss, size, {what: float(value) for what, value in logged.items()}, gradients))
    whole, narrowed = results
    torch.testing.assert_close(narrowed[0], whole[0])
    assert narrowed[1] == whole[1]
    assert narrowed[2] == pytest.approx(whole[2])
    assert ("n_correct" in whole[2]) == name.startswith("smoothed")
    for what, gradient in whole[3].items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(narrowed[3][what], gradient, msg=what)


@pytest.mark.parametrize("name", CRITERIONS)
def test_every_position_without_reducing(name: str) -> None:
    criterion, model = CRITERIONS[name](), Narrow()
    narrow_criterion(criterion, V)
    loss, nll = criterion.compute_loss(model, model(), sample(model), reduce=False)
    skipped = getattr(criterion, "ignore_prefix_size", 0)
    counted = model.target[:, skipped:].ne(PADDING).sum()
    assert loss.shape == nll.shape == (counted,)
    total, total_nll = criterion.compute_loss(model, model(), sample(model))
    torch.testing.assert_close(loss.sum(), total)
    torch.testing.assert_close(nll.sum(), total_nll)


@pytest.mark.parametrize("name", CRITERIONS)
def test_what_is_not_narrowed_is_stocks(name: str) -> None:
    criterion, stock, model = CRITERIONS[name](), CRITERIONS[name](), Whole()
    narrow_criterion(criterion, V)
    assert type(criterion).__name__ == type(stock).__name__  # is written into checkpoints
    assert isinstance(criterion, type(stock))
    for reduce in (True, False):
        mine, theirs = (one(model, sample(model), reduce) for one in (criterion, stock))
        torch.testing.assert_close(mine[0], theirs[0])
        assert mine[2].keys() == theirs[2].keys()


def test_another_criterion_is_refused() -> None:
    criterion = AdaptiveLoss.__new__(AdaptiveLoss)
    with pytest.raises(ConfigurationError, match="the criterion is AdaptiveLoss: choose one of these"):
        narrow_criterion(criterion, V)
