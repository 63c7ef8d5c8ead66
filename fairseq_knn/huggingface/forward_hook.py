"""Being told of every forward of a model, with the hidden states it computed."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.call import Call
from fairseq_knn.huggingface.layers import HiddenStateTap


class ForwardHook(ABC):
    """Sits in a model, by torch's own means, until it is removed; the model's class and attributes stay.

    Args:
        model: of transformers.
        key: which hidden state, one of ``layers.KEY_KINDS``.

    Raises:
        ConfigurationError: the model has no such hidden state, or another hook of this kind sits in it.
    """

    def __init__(self, model: Any, key: str) -> None:
        hooks = model._forward_hooks.values()
        if any(isinstance(getattr(hook, "__self__", None), ForwardHook) for hook in hooks):
            raise ConfigurationError(
                "the model consults or fills a datastore already: break_out() of what is in it first (one wrapper "
                "takes several datastores)"
            )
        self._tap = HiddenStateTap(model, key)
        self._handle = model.register_forward_hook(self._on_forward, with_kwargs=True)

    @abstractmethod
    def after(self, call: Call, states: Tensor) -> Any:
        """What the forward is to return.

        Args:
            call: the forward.
            states: hidden states of the positions that have logits, (B, n, d).
        """

    def remove(self) -> None:
        """Leave the model as it was."""
        self._handle.remove()
        self._tap.remove()

    def _on_forward(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        call = Call.of(model, args, kwargs, output)
        states = self._tap.take(call.logits.size(0))
        if call.logits.size(1) != states.size(1):
            states = states[:, -call.kept :]
        return self.after(call, states.to(call.logits.device))
