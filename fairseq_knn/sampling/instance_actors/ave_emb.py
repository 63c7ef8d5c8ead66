"""The actor that looks at mean embeddings (DDS: Wang et al. 2020, arXiv 1911.10088)."""

import torch
from torch import Tensor

from fairseq_knn.sampling.instance_actors.base import InstanceActor
from fairseq_knn.sampling.instance_actors.settings import InstanceActorSettings
from fairseq_knn.sampling.instance_actors.tables import mean_over, token_tables


class AveEmbActor(InstanceActor):
    """Scores the mean of the source's embeddings beside the mean of the target's with one linear layer.

    What it makes of the source and what it makes of the target are added up, so it learns which words, topics and
    styles help. It cannot compare the two: the best it can do against wrong translations is to learn a sum that comes
    out the same for all right ones, and then half of the wrong ones lie above it.
    """

    def __init__(self, settings: InstanceActorSettings) -> None:
        source, target = token_tables(settings)
        super().__init__(settings, source.embedding_dim + target.embedding_dim)
        self.source, self.target = source, target

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        of_source = mean_over(source.ne(self.padding), self.source(source))
        of_target = mean_over(target.ne(self.padding), self.target(target))
        return torch.cat([of_source, of_target], dim=-1)
