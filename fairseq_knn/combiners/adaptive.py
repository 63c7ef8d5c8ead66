"""Adaptive kNN-MT (Zheng et al. 2021, arXiv 2105.13022): how many neighbours, and how much they count, per token.

Two parametrisations:

* ``joint``, the paper's (equations 4 to 6): one network gives a distribution over using 0, 1, 2, 4, ..., K neighbours;
  the share of 0 neighbours is the model's own.
* ``separate``, knn-box's: a distribution over 1, 2, 4, ..., K neighbours, lambda and the temperature come from three
  networks, each of which may be replaced by a fixed value.

Both see the distances and how many different tokens there are among the nearest 1, 2, ..., K neighbours.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_knn.combiners.base import Mixture
from fairseq_knn.combiners.features import finite_distances, network_input
from fairseq_knn.combiners.sizes import CombinerSizes
from fairseq_knn.combiners.trained import TrainedCombiner, trained_mixture
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval.neighbours import Neighbours

FORMS = ("joint", "separate")
_HIDDEN = 32


class AdaptiveCombiner(TrainedCombiner):
    """Weighs nested sets of neighbours.

    Args:
        max_k: K, a power of two; the number of neighbours that are retrieved.
        probability_dim: size of the vocabulary, V.
        form: ``joint`` or ``separate``.
        temperature: T; in the separate form ``None`` learns it. The paper fixes 10 and so do knn-box's scripts: a
            learned one is a sigmoid, below 1, which leaves about the nearest neighbour alone.
        k: separate form: a fixed number of neighbours, a power of two; ``None`` learns their distribution.
        weight: separate form: a fixed lambda; ``None`` learns it.
        hidden: units of each network.
        label_counts: whether the counts of different tokens are an input beside the distances.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    kind = "adaptive"
    knnbox_weights = "adaptive_combiner.pt"

    max_k: int
    outside: Tensor

    def __init__(
        self,
        max_k: int,
        probability_dim: int,
        form: str = "joint",
        temperature: float | None = 10.0,
        k: int | None = None,
        weight: float | None = None,
        hidden: int = _HIDDEN,
        label_counts: bool = True,
    ) -> None:
        super().__init__(probability_dim)
        if max_k < 1 or max_k & (max_k - 1):
            raise ConfigurationError(
                f"max-k is {max_k}, but adaptive kNN-MT chooses among 1, 2, 4, ... neighbours: pass a power of two as "
                "--knn-max-k"
            )
        if form not in FORMS:
            raise ConfigurationError(f"the form is {form!r}, but adaptive kNN-MT has {' and '.join(FORMS)}")
        if k is not None and not (1 <= k <= max_k and k & (k - 1) == 0):
            raise ConfigurationError(
                f"k is fixed to {k}, but adaptive kNN-MT chooses among 1, 2, 4, ... up to {max_k} neighbours: fix it "
                "to one of these"
            )
        if weight is not None and not 0 <= weight <= 1:
            raise ConfigurationError(
                f"lambda is fixed to {weight}, but it is the weight of the neighbours: choose it between 0 and 1"
            )
        if temperature is not None and not 0 < temperature < math.inf:
            raise ConfigurationError(
                f"the temperature is {temperature}, but distances are divided by it: choose a finite one above 0"
            )
        self.max_k, self.form, self.temperature, self.k, self.weight = max_k, form, temperature, k, weight
        self.hidden, self.label_counts = hidden, label_counts
        sets = max_k.bit_length()  # 1, 2, 4, ..., K
        if form == "joint":
            if temperature is None or k is not None or weight is not None:
                raise ConfigurationError(
                    "the joint form has a fixed temperature and learns k and lambda together: choose "
                    "--knn-adaptive-form separate, where each can be learned or fixed"
                )
            self.to_choice = self._network(sets + 1)
        else:
            self.to_k = self._network(sets) if k is None else None
            self.to_lambda = self._network(1) if weight is None else None
            self.to_temperature = self._network(1) if temperature is None else None
        sizes = 2 ** torch.arange(sets)
        # Which neighbours are outside of each set, bool (sets, K).
        self.register_buffer("outside", torch.arange(max_k) >= sizes[:, None], persistent=False)

    def _network(self, outputs: int) -> nn.Sequential:
        """Two layers; small weights at first, for distances are large (knn-box's initialisation)."""
        inputs = 2 * self.max_k if self.label_counts else self.max_k
        first = nn.Linear(inputs, self.hidden)
        nn.init.xavier_normal_(first.weight[:, : self.max_k], gain=0.01)
        if self.label_counts:
            nn.init.xavier_normal_(first.weight[:, self.max_k :], gain=0.1)
        return nn.Sequential(first, nn.Tanh(), nn.Linear(self.hidden, outputs))

    def config(self) -> dict[str, Any]:
        names = ("max_k", "probability_dim", "form", "temperature", "k", "weight", "hidden", "label_counts")
        return {name: getattr(self, name) for name in names}

    @trained_mixture
    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        found = neighbours.found
        any_found = found.any(dim=-1, keepdim=True)
        measured: dict[str, Tensor] = {}
        seen = network_input(neighbours)
        seen = seen if self.label_counts else seen[..., : self.max_k]
        if self.form == "joint":
            outside, choice = self.outside, self.to_choice(seen).log_softmax(dim=-1)
            log_some = choice[..., 1:].logsumexp(dim=-1, keepdim=True)
            log_sets, weight = choice[..., 1:] - log_some, log_some.exp()
            temperature: Tensor | float = self.temperature or 1.0
        else:
            outside, log_sets = self._sets(seen)
            weight = seen.new_full((*seen.shape[:-1], 1), self.weight or 0.0)
            if self.to_lambda is not None:
                weight = self.to_lambda(seen).sigmoid()
            temperature = self.temperature or 1.0
            if self.to_temperature is not None:
                learned = self.to_temperature(seen).sigmoid()
                temperature, measured = learned, {"temperature": learned.detach()}
        distances = finite_distances(neighbours)
        scores = (distances.amin(dim=-1, keepdim=True) - distances) / temperature
        # The nearest neighbour is in every set, so each has a distribution if anything is found at all.
        left_out = ((~found & any_found).unsqueeze(-2) | outside).broadcast_to(*log_sets.shape, self.max_k)
        log_each = scores.unsqueeze(-2).masked_fill(left_out, -torch.inf).log_softmax(dim=-1)
        # What is in no set at all: a sum over none has no gradient.
        unused = ~found | outside.all(dim=0)
        log_each = log_each.masked_fill(unused.unsqueeze(-2), 0.0)
        log_weights = (log_sets.unsqueeze(-1) + log_each).logsumexp(dim=-2).masked_fill(unused, -torch.inf)
        return Mixture(log_weights, weight * any_found, measured)

    def _sets(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Separate form: which neighbours are outside of each set, (sets, K), and its log-probability, (..., sets)."""
        if self.to_k is not None:
            return self.outside, self.to_k(seen).log_softmax(dim=-1)
        assert self.k is not None
        return self.outside[self.k.bit_length() - 1].unsqueeze(0), seen.new_zeros((*seen.shape[:-1], 1))

    @classmethod
    def fresh(cls, sizes: CombinerSizes) -> Self:
        options = sizes.arguments(cls.kind, form="form", temperature="temperature", fixed_k="k", weight="weight")
        combiner = cls(sizes.k, sizes.probability_dim, **options)
        if next(combiner.parameters(), None) is None:
            raise ConfigurationError(
                "k, lambda and the temperature are all fixed, but that leaves adaptive kNN-MT nothing to train: leave "
                "one of them open, or use the vanilla combiner, which needs no training"
            )
        return combiner

    @classmethod
    def from_knnbox(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        fixed = {
            "temperature": None if config["temperature_trainable"] else config["temperature"],
            "k": None if config["k_trainable"] else config["k"],
            # Its programs write lamda_, which its class does not know.
            "weight": None if config["lambda_trainable"] else config.get("lambda_", config.get("lamda_")),
        }
        size = next(tensor.shape[0] for name, tensor in weights.items() if name.endswith(".0.weight"))
        counts = config.get("label_count_as_feature", True)
        combiner = cls(
            config["max_k"], config["probability_dim"], "separate", **fixed, hidden=size, label_counts=counts
        )
        renamed = {}
        for name, tensor in weights.items():
            _, network, layer, kind = name.split(".")
            renamed[f"to_{network.removeprefix('distance_to_')}.{'0' if layer == '0' else '2'}.{kind}"] = tensor
        combiner.load_state_dict(renamed)
        return combiner
