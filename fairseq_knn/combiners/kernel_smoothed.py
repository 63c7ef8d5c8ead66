"""KSTER, kernel-smoothed kNN-MT (Jiang et al. 2021, arXiv 2109.09991).

The bandwidth of the kernel and the weight of the neighbours come from the query and the neighbours' keys (equations 4
to 8). While training on the text the datastore was built from, the query's own entry must not be among the neighbours
(retrieval dropout); whoever retrieves leaves it out, by its number.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from fairseq_knn.combiners.base import Mixture
from fairseq_knn.combiners.features import finite_distances
from fairseq_knn.combiners.sizes import CombinerSizes
from fairseq_knn.combiners.trained import TrainedCombiner, trained_mixture
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.retrieval.neighbours import Neighbours

# Each with the bandwidth the authors' code starts with.
KERNELS = {"laplacian": 10.0, "gaussian": 100.0}


class KernelSmoothedCombiner(TrainedCombiner):
    """Weighs neighbours by a kernel of learned bandwidth, and all of them by a learned lambda.

    ``s = exp(w [q; mean_i k_i] + b)``; weights ``softmax(-d / s)`` (gaussian) or ``softmax(-sqrt(d) / s)`` (laplacian)
    of the squared distances d; ``lambda = sigmoid(MLP [q; sum_i weight_i k_i])``.

    Args:
        query_dim: dimension of queries and keys, d.
        probability_dim: size of the vocabulary, V.
        kernel: ``laplacian`` (the default of both code bases) or ``gaussian``.
        bandwidth: about what it is before training. ``None`` for that of the authors' code, 10 (laplacian) and 100
            (gaussian), which is of the size of distances between hidden states, so that all neighbours have a weight
            and with it a gradient. knn-box starts at about 1 (pass 1): there the nearest neighbour has nearly all
            weight, and the bandwidth first has to grow.

        usual_k: how many neighbours it is trained with; it takes any number.

    Raises:
        ConfigurationError: there is no such kernel, or the bandwidth is out of its range.
    """

    kind = "kernel_smoothed"
    knnbox_weights = "kernel_smoothed_combiner.pt"
    needs_keys = True

    def __init__(
        self,
        query_dim: int,
        probability_dim: int,
        kernel: str = "laplacian",
        bandwidth: float | None = None,
        usual_k: int | None = None,
    ) -> None:
        super().__init__(probability_dim)
        if kernel not in KERNELS:
            raise ConfigurationError(f"the kernel is {kernel!r}, but there are {' and '.join(KERNELS)} (--knn-kernel)")
        self.bandwidth = KERNELS[kernel] if bandwidth is None else bandwidth
        if not 0 < self.bandwidth < math.inf:
            raise ConfigurationError(
                f"the bandwidth is {bandwidth}, but distances are divided by it: choose a finite one above 0"
            )
        self.query_dim, self.kernel, self.usual_k = query_dim, kernel, usual_k
        self.log_bandwidth = nn.Linear(2 * query_dim, 1)
        nn.init.constant_(self.log_bandwidth.bias, math.log(self.bandwidth))
        self.to_lambda = nn.Sequential(nn.Linear(2 * query_dim, query_dim), nn.ReLU(), nn.Linear(query_dim, 1))

    def config(self) -> dict[str, Any]:
        names = ("query_dim", "probability_dim", "kernel", "bandwidth", "usual_k")
        return {name: getattr(self, name) for name in names}

    @trained_mixture
    def mixture(self, query: Tensor, neighbours: Neighbours, log_probs: Tensor) -> Mixture:
        assert neighbours.keys is not None, "the retriever was not asked for keys"
        found = neighbours.found
        any_found = found.any(dim=-1, keepdim=True)
        precision = self.log_bandwidth.weight.dtype
        query = query.to(precision)
        keys = neighbours.keys.to(precision).masked_fill(~found.unsqueeze(-1), 0.0)
        mean = keys.sum(dim=-2) / found.sum(dim=-1, keepdim=True).clamp(min=1)
        bandwidth = self.log_bandwidth(torch.cat([query, mean], dim=-1)).exp()
        distances = finite_distances(neighbours).clamp(min=0)
        if self.kernel == "laplacian":
            distances = distances.sqrt()
        scores = (distances.amin(dim=-1, keepdim=True) - distances) / bandwidth
        log_weights = (
            scores.masked_fill(~found & any_found, -torch.inf).log_softmax(dim=-1).masked_fill(~found, -torch.inf)
        )
        smoothed = (log_weights.exp().unsqueeze(-1) * keys).sum(dim=-2)
        weight = self.to_lambda(torch.cat([query, smoothed], dim=-1)).sigmoid()
        return Mixture(log_weights, weight * any_found, {"bandwidth": bandwidth.detach()})

    @classmethod
    def fresh(cls, sizes: CombinerSizes) -> Self:
        options = sizes.arguments(cls.kind, kernel="kernel", bandwidth="bandwidth")
        return cls(sizes.query_dim, sizes.probability_dim, **options, usual_k=sizes.k)

    @classmethod
    def from_knnbox(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        combiner = cls(config["query_dim"], config["probability_dim"], config.get("kernel_type", "laplacian"))
        names = {"bandwidth_estimator.fc": "log_bandwidth", "weight_estimator.model": "to_lambda"}
        renamed = {}
        for name, tensor in weights.items():
            old = next(prefix for prefix in names if name.startswith(prefix))
            renamed[name.replace(old, names[old])] = tensor
        combiner.load_state_dict(renamed)
        return combiner
