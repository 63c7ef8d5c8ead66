"""A model of which only the combiner is trained and saved, made from any model object by changing its class."""

from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from fairseq_knn.combiners import TrainedCombiner
from fairseq_knn.combiners.measuring import add, measure
from fairseq_knn.combiners.narrowed import Mixed, mix_narrowed, narrowed_mixture
from fairseq_knn.errors import CombinerError
from fairseq_knn.models.decoder_state import STATE
from fairseq_knn.models.training_step import TrainingStep

_PREFIX = "combiner."


class NarrowedOutput(NamedTuple):
    """What a criterion needs of the mixture, without its V columns.

    Args:
        mixed: of the n positions that are not padding.
        real: where these are in the batch, bool (B, T).
    """

    mixed: Mixed
    real: Tensor


class FrozenBase:
    """Mixed into the class of a model object by :func:`attach_combiner`.

    The base is in evaluation mode and out of the optimiser whatever fairseq says; checkpoints hold the combiner alone.
    """

    combiner: TrainedCombiner

    def train(self, mode: bool = True) -> Self:
        """Training mode is the combiner's; dropout in the base would train on queries that never occur."""
        super().train(False)  # type: ignore[misc]
        self.combiner.train(mode)
        self.training = mode
        return self

    def forward(self, *args: Any, knn_step: TrainingStep | None = None, **kwargs: Any) -> Any:
        if knn_step is not None and knn_step.cached is not None:
            return self._from_cache(knn_step)
        with torch.no_grad():
            net_output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if knn_step is not None:
            net_output[1][STATE].step = knn_step
        return net_output

    def _from_cache(self, step: TrainingStep) -> NarrowedOutput:
        cached = step.cached
        assert cached is not None
        neighbours, narrowed = cached.neighbours, cached.narrowed
        column = torch.zeros_like(neighbours.values[..., 0])  # the target's
        if self.combiner.training:
            neighbours = self.combiner.disturbed(
                cached.query, neighbours, column, narrowed.log_probs[..., 0], step.update
            )
        mixture = narrowed_mixture(self.combiner, cached.query, neighbours, narrowed)
        add(step.measured, measure(mixture, neighbours, column))
        return NarrowedOutput(mix_narrowed(narrowed, neighbours, mixture), step.target.ne(self.decoder.knn_padding))  # type: ignore[attr-defined]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)  # type: ignore[misc]
        return {name: value for name, value in state.items() if name.startswith(_PREFIX)}

    def load_state_dict(
        self, state_dict: dict[str, Any], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """Load the combiner. The base is loaded already, and a checkpoint of the base changes nothing.

        Raises:
            CombinerError: the checkpoint holds a combiner of another kind or size.
        """
        own = {name.removeprefix(_PREFIX): value for name, value in state_dict.items() if name.startswith(_PREFIX)}
        if not own:
            return nn.modules.module._IncompatibleKeys([], [])
        try:
            return self.combiner.load_state_dict(own, strict=strict)
        except RuntimeError as error:
            raise CombinerError(
                f"the checkpoint holds a combiner of another kind or size than {self.combiner.kind} with "
                f"{self.combiner.config()}: choose another --save-dir, or the settings it was trained with"
            ) from error


_classes: dict[type, type] = {}


def attach_combiner(model: nn.Module, combiner: TrainedCombiner) -> None:
    """Make *combiner* a part of *model*, and the only one that is saved and loaded.

    Args:
        model: with its parameters loaded.
        combiner: on the CPU.
    """
    model.combiner = combiner
    stock = type(model)
    if stock not in _classes:
        _classes[stock] = type(stock.__name__, (FrozenBase, stock), {"__module__": __name__})
    model.__class__ = _classes[stock]
    model.train(model.training)


def freeze(model: nn.Module, combiner: TrainedCombiner) -> None:
    """As :func:`attach_combiner`, and *combiner* is the only part that is trained.

    Args:
        model: with its parameters loaded.
        combiner: on the CPU.
    """
    for parameter in model.parameters():
        parameter.requires_grad = False
    projection = getattr(getattr(model, "decoder", None), "output_projection", None)
    if isinstance(projection, nn.Module):
        # Decoders pass it transposed states. With a weight that needs no gradient torch multiplies those sentence by
        # sentence instead of all at once: ten times slower at a vocabulary of 32,000.
        projection.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    attach_combiner(model, combiner)


def combiner_of(model: nn.Module) -> TrainedCombiner:
    """The combiner of a model that :func:`attach_combiner` was applied to."""
    return cast(TrainedCombiner, model.combiner)
