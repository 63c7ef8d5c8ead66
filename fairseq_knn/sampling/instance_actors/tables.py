"""Vectors for tokens: an actor's own, or those of the translation model."""

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors.settings import InstanceActorSettings


class ModelTable(nn.Module):
    """The translation model's embeddings, as they are whenever it is called: no parameters, no state.

    Args:
        table: (V, d), or the embeddings that hold it.

    Raises:
        ConfigurationError: the model makes its vectors otherwise.
    """

    def __init__(self, table: Tensor | nn.Module) -> None:
        super().__init__()
        if not isinstance(table, (Tensor, nn.Embedding)):
            raise ConfigurationError(
                f"the translation model's embeddings are of the kind {type(table).__name__}, but the actor can only "
                "read plain tables of vectors: leave --data-actor-model-embed out"
            )
        self._held = (table,)  # in a tuple, torch does not take it for a part of the actor
        self.embedding_dim = self._weight().shape[1]

    def _weight(self) -> Tensor:
        (table,) = self._held
        return (table if isinstance(table, Tensor) else table.weight).detach()

    def forward(self, tokens: Tensor) -> Tensor:
        """Float32 (..., d) for int64 (...)."""
        return nn.functional.embedding(tokens, self._weight()).float()


def token_tables(settings: InstanceActorSettings) -> tuple[nn.Embedding | ModelTable, nn.Embedding | ModelTable]:
    """For source and target, each with an ``embedding_dim``; own ones have components of variance 1 / d.

    Raises:
        ConfigurationError: the translation model has no plain tables.
    """
    if settings.model_embeddings is not None:
        source, target = settings.model_embeddings
        return ModelTable(source), ModelTable(target)
    return _own_table(settings.source_vocabulary, settings), _own_table(settings.target_vocabulary, settings)


def _own_table(vocabulary: int, settings: InstanceActorSettings) -> nn.Embedding:
    table = nn.Embedding(vocabulary, settings.embed_dim, settings.padding)
    with torch.no_grad():
        table.weight.mul_(settings.embed_dim**-0.5)
    table.weight.requires_grad = settings.train_embeddings
    return table


def mean_over(real: Tensor, vectors: Tensor) -> Tensor:
    """The mean vector of every sentence's real tokens, and zero if it has none.

    Args:
        real: bool (B, L).
        vectors: (B, L, d); what stands where no real token is must be finite, and does not count.

    Returns:
        (B, d).
    """
    counts = real.sum(dim=1, keepdim=True).clamp(min=1)
    return (vectors * real.unsqueeze(-1)).sum(dim=1) / counts
