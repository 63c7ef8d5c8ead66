"""Combiners with parameters: how they are saved and loaded, and knn-box's way of calling them."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from fairseq_knn.combiners.base import Combiner, Mixture
from fairseq_knn.combiners.sizes import CombinerSizes
from fairseq_knn.errors import CombinerError, UserError
from fairseq_knn.retrieval.neighbours import Neighbours
from fairseq_knn.storage.atomic import atomic_path, make_directory, read_json, write_json

SCHEMA = 1
_CONFIG, _WEIGHTS = "config.json", "combiner.safetensors"


def trained_mixture(mixture: Callable[..., Mixture]) -> Callable[..., Mixture]:
    """Decorate :meth:`Combiner.mixture` of a trained combiner.

    Automatic mixed precision, which would run its networks in half precision, is off. And lambda stays an epsilon below
    1: a network that is sure enough gives exactly 1 in float32, and one target that is not among the neighbours would
    then make the loss of all infinite.
    """

    @functools.wraps(mixture)
    def decorated(*args: Any, **kwargs: Any) -> Mixture:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            result = mixture(*args, **kwargs)
        weight = result.weight
        return replace(result, weight=weight.clamp(max=1 - torch.finfo(weight.dtype).eps))

    return decorated


class TrainedCombiner(nn.Module, Combiner):
    """A combiner that is trained; on disk a directory with ``config.json`` and ``combiner.safetensors``.

    It stays in float32 when the model it belongs to is converted to half precision: the networks see squared distances,
    which may be beyond the largest half, and it is so small that nothing is gained. Queries, keys and what the model
    gives them may be in half precision.

    Attributes:
        knnbox_weights: what knn-box calls the file of its parameters.
        probability_dim: size of the vocabulary, V.
        lambda_: weight of the neighbours in the last call of :meth:`get_knn_prob`, (..., 1).
    """

    knnbox_weights: ClassVar[str]

    def __init__(self, probability_dim: int) -> None:
        super().__init__()
        self.probability_dim = probability_dim
        self.lambda_: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What ``.to``, ``.half``, ``.cuda`` and the like do with every tensor."""

        def in_own_precision(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if result.is_floating_point() and result.dtype.itemsize < 4:
                return tensor.to(result.device)
            return result

        result: Self = super()._apply(in_own_precision, recurse)  # type: ignore[no-untyped-call]
        return result

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments that make a combiner of the same shape."""

    @classmethod
    @abstractmethod
    def fresh(cls, sizes: CombinerSizes) -> Self:
        """Make a combiner to be trained.

        Args:
            sizes: of its surroundings, and options (:meth:`CombinerSizes.arguments` turns them into arguments).

        Raises:
            ConfigurationError: it has no such option, or a value is out of its range.
        """

    @classmethod
    @abstractmethod
    def from_knnbox(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        """Make a combiner of what knn-box dumped.

        Args:
            config: its ``config.json``.
            weights: its state.
        """

    def disturbed(
        self, query: Tensor, neighbours: Neighbours, target: Tensor, target_log_probs: Tensor, update: int
    ) -> Neighbours:
        """The neighbours to train with in one update: the same, unless training is made harder than translation.

        Args:
            query: hidden states, (..., d).
            neighbours: of these queries, (..., k), with keys if the combiner :attr:`needs_keys_to_train`.
            target: the reference's tokens, int64 (...,), named as in the neighbours' values: all 0 with
                columns (:mod:`~fairseq_knn.combiners.narrowed`).
            target_log_probs: what the model gives the target, float32 (...,).
            update: how many updates there have been.
        """
        return neighbours

    def dump(self, path: Path | str) -> None:
        """Write the combiner into a directory.

        Raises:
            UserError: it cannot be written.
        """
        root = Path(path)
        make_directory(root)
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with atomic_path(root / _WEIGHTS) as temporary:
            # save_file would let nobody else read it.
            temporary.write_bytes(safetensors.torch.save(state))
        write_json(root / _CONFIG, {"schema": SCHEMA, "combiner": self.kind, **self.config()})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a combiner of this class that :meth:`dump` or knn-box wrote.

        Raises:
            CombinerError: there is none, it is damaged, or of another kind.
        """
        root = Path(path)
        config = read_combiner_config(root)
        try:
            if (root / cls.knnbox_weights).exists():
                weights = torch.load(root / cls.knnbox_weights, map_location="cpu", weights_only=True)
                return cls.from_knnbox(config, weights)
            if (found := config.pop("combiner", None)) != cls.kind:
                raise CombinerError(
                    f"{root} holds a combiner of the kind {found!r}, but {cls.kind!r} was asked for: name its own kind "
                    "with --knn-combiner, or another directory"
                )
            config.pop("schema", None)
            combiner = cls(**config)
            combiner.load_state_dict(safetensors.torch.load_file(root / _WEIGHTS))
        except UserError:
            raise
        except Exception as error:  # whatever torch and safetensors make of damaged files
            raise CombinerError(
                f"{root} holds no whole {cls.kind} combiner ({' '.join(str(error).split())[:200]}): restore it, or "
                "train it again"
            ) from error
        return combiner

    def get_knn_prob(
        self, *, query: Tensor, vals: Tensor, distances: Tensor, keys: Tensor | None = None, **_: Any
    ) -> Tensor:
        """The neighbours' distribution, for code written for knn-box; nothing else needs it as a whole.

        Args:
            query: (..., d).
            vals, distances: of the neighbours, (..., k).
            keys: (..., k, d), for combiners that weigh them.

        Returns:
            float32 (..., V); its weight against the model is left in ``lambda_``.
        """
        neighbours = Neighbours(distances.float(), torch.zeros_like(vals), vals, keys=keys)
        mixture = self.mixture(query, neighbours, query.new_empty(0))
        self.lambda_ = mixture.weight
        zeros = mixture.log_weights.new_zeros((*vals.shape[:-1], self.probability_dim))
        return zeros.scatter_add(-1, vals, mixture.log_weights.exp())

    def get_combined_prob(self, knn_prob: Tensor, neural_model_logit: Tensor, log_probs: bool = False) -> Tensor:
        """Mix what :meth:`get_knn_prob` gave with the model's distribution.

        Args:
            knn_prob: float32 (..., V).
            neural_model_logit: (..., V).
            log_probs: whether to return logarithms.
        """
        assert self.lambda_ is not None, "get_knn_prob comes first"
        probs = self.lambda_ * knn_prob + (1 - self.lambda_) * neural_model_logit.float().softmax(dim=-1)
        return probs.log() if log_probs else probs


def read_combiner_config(root: Path) -> dict[str, Any]:
    """``config.json`` of a combiner's directory.

    Raises:
        CombinerError: there is none, or it is damaged.
    """
    try:
        config = read_json(root / _CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        raise CombinerError(
            f"there is no combiner in {root}: train one with --knn-mode train, or correct --knn-combiner-path"
        ) from None
    except UserError as error:
        raise CombinerError(str(error)) from error
    if not isinstance(config, dict):
        raise CombinerError(f"{root / _CONFIG} does not describe a combiner: restore it, or train it again")
    return config
