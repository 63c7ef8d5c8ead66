"""What adaptive and robust combiners see of the neighbours, besides keys and values."""

import torch
from torch import Tensor

from fairseq_knn.retrieval.neighbours import Neighbours


def finite_distances(neighbours: Neighbours) -> Tensor:
    """Distances as input of a network, float32 (..., k): a missing neighbour is as far as the furthest found."""
    found = neighbours.found
    furthest = neighbours.distances.masked_fill(~found, 0.0).amax(dim=-1, keepdim=True)
    return torch.where(found, neighbours.distances, furthest)


def distinct_values(neighbours: Neighbours) -> Tensor:
    """How many different tokens are among the first j neighbours, for j = 1, ..., k: int64 (..., k).

    (Zheng et al. 2021, arXiv 2105.13022, section 3.1.) Every token counts, also that with id 0, which the code of
    adaptive kNN-MT and knn-box leaves out; it is ``<s>`` in fairseq's dictionaries and never a target.
    """
    values = neighbours.values
    same = values.unsqueeze(-1) == values.unsqueeze(-2)
    before = torch.ones_like(same).tril(-1) & neighbours.found.unsqueeze(-2)
    repeated = (same & before).any(dim=-1)
    return (~repeated & neighbours.found).cumsum(dim=-1)


def network_input(neighbours: Neighbours) -> Tensor:
    """``[d_1..d_k; c_1..c_k]``, (..., 2 k) in the type of the distances."""
    distances = finite_distances(neighbours)
    return torch.cat([distances, distinct_values(neighbours).to(distances)], dim=-1)
