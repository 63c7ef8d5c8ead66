"""Robust kNN-MT (Jiang et al. 2022, arXiv 2210.08808): neighbours weighed by how sure the model was of them.

Distribution calibration (equation 4) adds to every neighbour a term made of ``p(v_i | k_i)``, what the model gave the
neighbour's token in its own place, and ``p(v_i | q)``, what it gives it here. Weight prediction (equations 5 to 7)
compares a score of the neighbours with one of the model. While it is trained the neighbours are disturbed (section
3.3), so that it learns when not to trust them.
"""

import math
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_knn.combiners.base import Mixture
from fairseq_knn.combiners.features import finite_distances, network_input
from fairseq_knn.combiners.sizes import CombinerSizes
from fairseq_knn.combiners.trained import TrainedCombiner, trained_mixture
from fairseq_knn.errors import ConfigurationError
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
        alpha0: how often neighbours are disturbed in the first update (a probability; above 1 is always).
        beta: updates in which that falls to a third (1 / e) of itself.
        sigma: standard deviation of the noise in every dimension of a key.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    kind = "robust"
    knnbox_weights = "robust_combiner.pt"
    needs_key_log_probs = True
    needs_keys_to_train = True

    max_k: int

    def __init__(
        self,
        max_k: int,
        probability_dim: int,
        hidden: int = 32,
        hidden_calibration: int = 4,
        top: int = 8,
        alpha0: float = 1.0,
        beta: float = 1000.0,
        sigma: float = 0.01,
    ) -> None:
        super().__init__(probability_dim)
        if not 0 <= alpha0 < math.inf or not 0 <= sigma < math.inf or not beta > 0:
            raise ConfigurationError(
                f"the training noise has alpha {alpha0}, beta {beta} and sigma {sigma}, but it is drawn with "
                "probability alpha * exp(-update / beta) and standard deviation sigma: choose beta above 0, and the "
                "others 0 or above"
            )
        self.max_k, self.hidden, self.hidden_calibration, self.top = max_k, hidden, hidden_calibration, top
        self.alpha0, self.beta, self.sigma = alpha0, beta, sigma
        self.calibration = nn.Sequential(nn.Linear(2, hidden_calibration), nn.Tanh(), nn.Linear(hidden_calibration, 1))
        self.neighbour_score = nn.Sequential(nn.Linear(2 * max_k, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.model_score = nn.Linear(2 * max_k + top, 1)

    def config(self) -> dict[str, Any]:
        shape = ("max_k", "probability_dim", "hidden", "hidden_calibration", "top")
        return {name: getattr(self, name) for name in (*shape, "alpha0", "beta", "sigma")}

    @trained_mixture
    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        assert neighbours.key_log_probs is not None, "the retriever was not asked for p(v|k)"
        found = neighbours.found
        any_found = found.any(dim=-1, keepdim=True)
        precision = self.model_score.weight.dtype
        at_key = neighbours.key_log_probs.to(precision).clamp(min=_LEAST).masked_fill(~found, _LEAST)
        at_query = log_probs.gather(-1, neighbours.values).to(precision).clamp(min=_LEAST).masked_fill(~found, _LEAST)
        best = log_probs.topk(self.top, dim=-1).values.to(precision).clamp(min=_LEAST)
        calibration = self.calibration(torch.stack([at_key, at_query], dim=-1)).squeeze(-1)
        score, against_distance = self.neighbour_score(network_input(neighbours)).split(1, dim=-1)
        sharpness = against_distance.sigmoid()
        against = self.model_score(torch.cat([best, at_key, at_query], dim=-1))
        # softmax over the two scores
        weight = (score - against).sigmoid()
        distances = finite_distances(neighbours)
        scores = (distances.amin(dim=-1, keepdim=True) - distances) * sharpness + calibration
        log_weights = (
            scores.masked_fill(~found & any_found, -torch.inf).log_softmax(dim=-1).masked_fill(~found, -torch.inf)
        )
        # What distances are divided by, as elsewhere: the paper's factor is its inverse.
        return Mixture(log_weights, weight * any_found, {"temperature": sharpness.detach().reciprocal()})

    def disturbed(
        self, query: Tensor, neighbours: Neighbours, target: Tensor, target_log_probs: Tensor, update: int
    ) -> Neighbours:
        """Noise in the neighbours (section 3.3), drawn for every query alone, from torch's generator.

        With probability ``alpha0 * exp(-update / beta)`` all keys of a query get Gaussian noise; and, drawn on its own
        with the same probability, where the target was not retrieved the farthest neighbour becomes the query, with
        noise, and the target. An empty place is the farthest there is. The new neighbour keeps the number of that whose
        place it takes (0 in an empty one), for only what has a number counts as found; it is no entry of the datastore.
        What the model gives the other tokens in their own place is as without noise. Distances to disturbed keys are
        computed anew and the neighbours sorted; a query that nothing happens to keeps what was retrieved.
        """
        assert neighbours.keys is not None, "noise is added to keys"
        assert neighbours.key_log_probs is not None, "the retriever was not asked for p(v|k)"
        rate = self.alpha0 * math.exp(-update / self.beta)
        precision = self.model_score.weight.dtype
        query, target = query.to(precision), target.unsqueeze(-1)
        retrieved = ((neighbours.values == target) & neighbours.found).any(dim=-1, keepdim=True)
        noisy = torch.rand(target.shape, device=query.device) < rate
        added = (torch.rand(target.shape, device=query.device) < rate) & ~retrieved
        farthest = neighbours.distances.argmax(dim=-1, keepdim=True)
        place = torch.zeros_like(neighbours.found).scatter(-1, farthest, added)

        keys = neighbours.keys.to(precision)
        keys = torch.where(noisy.unsqueeze(-1), keys + self.sigma * torch.randn_like(keys), keys)
        near_query = query + self.sigma * torch.randn_like(query)
        keys = torch.where(place.unsqueeze(-1), near_query.unsqueeze(-2), keys)
        ids = torch.where(place, neighbours.ids.clamp(min=0), neighbours.ids)
        distances = (keys - query.unsqueeze(-2)).square().sum(dim=-1).to(neighbours.distances)
        distances = torch.where(noisy | place, distances, neighbours.distances).masked_fill(ids < 0, torch.inf)
        at_keys = torch.where(
            place, target_log_probs.unsqueeze(-1).to(neighbours.key_log_probs), neighbours.key_log_probs
        )

        order = distances.argsort(dim=-1, stable=True)
        return replace(
            neighbours,
            distances=distances.gather(-1, order),
            ids=ids.gather(-1, order),
            values=torch.where(place, target, neighbours.values).gather(-1, order),
            keys=keys.gather(-2, order.unsqueeze(-1).expand_as(keys)),
            key_log_probs=at_keys.gather(-1, order),
        )

    @classmethod
    def fresh(cls, sizes: CombinerSizes) -> Self:
        return cls(
            sizes.k, sizes.probability_dim, **sizes.arguments(cls.kind, alpha="alpha0", beta="beta", sigma="sigma")
        )

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
