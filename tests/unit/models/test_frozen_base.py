"""Of a frozen base only the combiner is trained, saved and loaded, whatever is done to the model."""

import pickle
from typing import Any

import pytest
import torch

from fairseq_knn.combiners import AdaptiveCombiner
from fairseq_knn.errors import CombinerError
from fairseq_knn.models.frozen_base import attach_combiner, combiner_of, freeze
from tests.unit.models import tiny


@pytest.fixture(params=["transformer pre-norm tied", "lstm tied", "fconv untied"])
def model(request: pytest.FixtureRequest) -> Any:
    model = tiny.build(request.param, dropout=0.5)
    freeze(model, AdaptiveCombiner(4, tiny.V))
    return model


def test_the_combiner_alone_is_trained(model: Any) -> None:
    # What fairseq's Trainer gives to the optimiser.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in combiner_of(model).parameters()}
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert model.training == mode
        modules = dict(model.named_modules())
        del modules[""]
        wrong = [name for name, one in modules.items() if one.training != (mode and name.startswith("combiner"))]
        assert wrong == []
    assert not model.eval().training
    assert not combiner_of(model).training


def test_the_state_is_the_combiners(model: Any) -> None:
    state = model.state_dict()
    assert state.keys() == {f"combiner.{name}" for name in combiner_of(model).state_dict()}
    base = next(parameter for name, parameter in model.named_parameters() if not name.startswith("combiner."))
    before = base.clone()
    doubled = {name: 2 * tensor for name, tensor in state.items()}
    loaded = model.load_state_dict({**doubled, "decoder.other": torch.zeros(1)}, strict=True, model_cfg=None)
    assert not loaded.missing_keys
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, doubled[name])
    assert torch.equal(base, before)


def test_a_checkpoint_of_the_base_changes_nothing(model: Any) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    names = [name for name in before if not name.startswith("combiner.")]
    model.load_state_dict({name: torch.ones_like(before[name]) for name in names}, strict=True)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_another_combiner_is_refused(model: Any) -> None:
    other = AdaptiveCombiner(8, tiny.V).state_dict()
    for state in (other, dict(list(combiner_of(model).state_dict().items())[:1])):
        with pytest.raises(CombinerError, match="of another kind or size than adaptive with"):
            model.load_state_dict({f"combiner.{name}": tensor for name, tensor in state.items()})


def test_half_precision_is_the_bases(model: Any) -> None:
    model.half()
    kinds = {name.startswith("combiner."): parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds == {False: torch.float16, True: torch.float32}
    assert pickle.loads(pickle.dumps(model.state_dict())).keys() == model.state_dict().keys()


def test_a_frozen_projection_multiplies_all_positions_at_once() -> None:
    # torch takes transposed states sentence by sentence where the weight needs no gradient: ten times slower.
    model = tiny.build("transformer pre-norm tied", dropout=0.0)
    seen: list[torch.Tensor] = []
    freeze(model, AdaptiveCombiner(4, tiny.V))
    model.decoder.output_projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    states = torch.rand(3, 5, model.decoder.output_projection.in_features).transpose(0, 1)
    model.decoder.output_projection(states)
    assert seen[0].is_contiguous()
    assert torch.equal(seen[0], states)


def test_a_combiner_that_is_only_used_freezes_nothing() -> None:
    model = tiny.build("transformer pre-norm tied", dropout=0.0)
    attach_combiner(model, AdaptiveCombiner(4, tiny.V))
    assert all(parameter.requires_grad for parameter in model.parameters())
