"""Robust kNN-MT (Jiang et al. 2022, arXiv 2210.08808): neighbours weighed by how sure the model was of them.

Distribution calibration (equation 4) adds to every neighbour a term made of ``p(v_i | k_i)``, what the model gave the
neighbour's token in its own place, and ``p(v_i | q)``, what it gives it here. Weight prediction (equations 5 to 7)
compares a score of the neighbours with one of the model.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_knn.combiners.base import Mixture
from fairseq_knn.combiners.features import finite_distances, network_input
from fairseq_knn.combiners.trained import TrainedCombiner
from fairseq_knn.retrieval.neighbours import Neighbours

_LEAST = -50.0  # nats: probabilities that are 0 in float32 would make the networks' input infinite


class RobustCombiner(TrainedCombiner):
    """Weighs neighbours by distance and by the model's confidence in them.

    Args:
        max_k: K, the number of neighbours.
        probability_dim: size of the vocabulary, V.
        hidden: units of the network over distances and counts.
        hidden_calibration: units of the calibration network.
        top: how many of the model's highest probabilities its score is made of.
    """

    kind = "robust"
    knnbox_weights = "robust_combiner.pt"
    needs_key_log_probs = True

    max_k: int

    def __init__(
        self, max_k: int, probability_dim: int, hidden: int = 32, hidden_calibration: int = 4, top: int = 8
    ) -> None:
        super().__init__(probability_dim)
        self.max_k, self.hidden, self.hidden_calibration, self.top = max_k, hidden, hidden_calibration, top
        self.calibration = nn.Sequential(nn.Linear(2, hidden_calibration), nn.Tanh(), nn.Linear(hidden_calibration, 1))
        self.neighbour_score = nn.Sequential(nn.Linear(2 * max_k, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.model_score = nn.Linear(2 * max_k + top, 1)

    def config(self) -> dict[str, Any]:
        names = ("max_k", "probability_dim", "hidden", "hidden_calibration", "top")
        return {name: getattr(self, name) for name in names}

    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        assert neighbours.key_log_probs is not None, "the retriever was not asked for p(v|k)"
        found = neighbours.found
        any_found = found.any(dim=-1, keepdim=True)
        at_key = neighbours.key_log_probs.to(log_probs).clamp(min=_LEAST).masked_fill(~found, _LEAST)
        at_query = log_probs.gather(-1, neighbours.values).clamp(min=_LEAST).masked_fill(~found, _LEAST)
        best = log_probs.topk(self.top, dim=-1).values.clamp(min=_LEAST)
        calibration = self.calibration(torch.stack([at_key, at_query], dim=-1)).squeeze(-1)
        score, inverse_temperature = self.neighbour_score(network_input(neighbours)).split(1, dim=-1)
        against = self.model_score(torch.cat([best, at_key, at_query], dim=-1))
        # softmax over the two scores
        weight = (score - against).sigmoid()
        distances = finite_distances(neighbours)
        scores = (distances.amin(dim=-1, keepdim=True) - distances) * inverse_temperature.sigmoid() + calibration
        log_weights = (
            scores.masked_fill(~found & any_found, -torch.inf).log_softmax(dim=-1).masked_fill(~found, -torch.inf)
        )
        return Mixture(log_weights, weight * any_found)

    @classmethod
    def from_knnbox(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        prefix = "meta_k_network."
        inputs = weights[f"{prefix}distance_func.0.weight"].shape[1]
        # Its programs do not save how many probabilities the model's score is made of.
        combiner = cls(
            config["max_k"],
            config["probability_dim"],
            config.get("midsize", 32),
            config.get("midsize_dc", 4),
            inputs - 2 * config["max_k"],
        )
        names = {"distance_func.0": "model_score", "distance_fc1": "calibration", "distance_fc2": "neighbour_score"}
        renamed = {}
        for name, tensor in weights.items():
            short = name.removeprefix(prefix)
            old = next(part for part in names if short.startswith(part))
            renamed[short.replace(old, names[old])] = tensor
        combiner.load_state_dict(renamed)
        return combiner
