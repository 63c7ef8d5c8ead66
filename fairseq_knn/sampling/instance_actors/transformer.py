"""The actor that reads both sentences together."""

import math

import torch
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.instance_actors.base import InstanceActor
from fairseq_knn.sampling.instance_actors.settings import InstanceActorSettings
from fairseq_knn.sampling.instance_actors.tables import mean_over, token_tables

_LAYERS = 2
_HEADS = 4


class TransformerActor(InstanceActor):
    """A small transformer encoder (pre-norm, no dropout) over source and target, one after the other.

    Every token is the sum of its embedding, its sinusoidal position in its sentence and a vector for its side; the
    mean over all tokens is scored. So each target word can look for its source word, which :class:`AveEmbActor` has no
    means to.

    The actor of this name that the authors of DDS published is a whole translation model, encoder and decoder, of which
    the hidden state at the last position is scored: in a batch, that is padding for all but the longest targets.

    Raises:
        ConfigurationError: the width cannot be divided among the attention heads.
    """

    def __init__(self, settings: InstanceActorSettings) -> None:
        width = settings.embed_dim
        if width % _HEADS:
            raise ConfigurationError(
                f"--data-actor-embed-dim is {width}, but the transformer actor divides it among {_HEADS} attention "
                f"heads: choose a multiple of {_HEADS}"
            )
        super().__init__(settings, width)
        self.source, self.target = token_tables(settings)
        self.source_in = _Entrance(self.source.embedding_dim, width)
        self.target_in = _Entrance(self.target.embedding_dim, width)
        layer = nn.TransformerEncoderLayer(width, _HEADS, 4 * width, dropout=0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, nn.LayerNorm(width), enable_nested_tensor=False)
        # It copies one layer, values and all.
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def features(self, source: Tensor, target: Tensor) -> Tensor:
        real_source, real_target = source.ne(self.padding), target.ne(self.padding)
        tokens = torch.cat(
            [
                self.source_in(self.source(source), real_source),
                self.target_in(self.target(target), real_target),
            ],
            dim=1,
        )
        real = torch.cat([real_source, real_target], dim=1)
        return mean_over(real, self.encoder(tokens, src_key_padding_mask=~real))


class _Entrance(nn.Module):
    """Makes one side's embeddings the encoder's input.

    Args:
        embedding_dim: width of the embeddings, with components of variance 1 / width; a linear layer follows if it is
            not the encoder's.
        width: of the encoder.
    """

    def __init__(self, embedding_dim: int, width: int) -> None:
        super().__init__()
        self.scale = math.sqrt(embedding_dim)
        self.narrow = nn.Identity() if embedding_dim == width else nn.Linear(embedding_dim, width)
        self.side = nn.Parameter(torch.randn(width))

    def forward(self, vectors: Tensor, real: Tensor) -> Tensor:
        """Float32 (B, L, width) of (B, L, embedding_dim) and where real tokens are, bool (B, L)."""
        # Counted without padding, which may come first.
        positions = real.cumsum(dim=1)
        x: Tensor = self.narrow(self.scale * vectors)
        return x + self.side + _sinusoids(positions, x.shape[-1])


def _sinusoids(positions: Tensor, width: int) -> Tensor:
    """Float32 (B, L, width) of int64 (B, L) (Vaswani et al. 2017, section 3.5; all sines, then all cosines)."""
    rates = 10000 ** (-torch.arange(0, width, 2, device=positions.device) / width)
    angles = positions.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
