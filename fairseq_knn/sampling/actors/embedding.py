"""An actor that knows languages by embeddings."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors.language_actor import ActorSettings, log_tensor
from fairseq_knn.sampling.actors.optimised import OptimisedActor


class EmbeddingNetwork(nn.Module):
    """Adds a linear function of each language's embedding to its first logit; at first the function is 0.

    Two linear layers without a non-linearity between them. The output has no bias, since the softmax would not see it.

    Args:
        logits: where it starts, float64 (n,).
        fixed: vectors of the languages that are not learned, float64 (n, e); e may be 0.
        learned_dim: dimension of the learned embeddings.
        hidden_dim: between the two layers.
        seed: of the learned embeddings and the first layer, which are drawn from U(-0.1, 0.1).
    """

    first_logits: Tensor
    fixed: Tensor

    def __init__(self, logits: Tensor, fixed: Tensor, learned_dim: int, hidden_dim: int, seed: int) -> None:
        super().__init__()
        # Its own: another actor must not change what the model draws.
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, dtype=torch.float64).uniform_(-0.1, 0.1, generator=generator))

        self.register_buffer("first_logits", logits)
        self.register_buffer("fixed", fixed)
        self.learned = drawn(len(logits), learned_dim)
        self.hidden_weight = drawn(hidden_dim, fixed.shape[1] + learned_dim)
        self.hidden_bias = drawn(hidden_dim)
        self.output_weight = nn.Parameter(torch.zeros(1, hidden_dim, dtype=torch.float64))

    def forward(self) -> Tensor:
        embeddings = torch.cat([self.fixed, self.learned], dim=1)
        hidden = linear(embeddings, self.hidden_weight, self.hidden_bias)
        return self.first_logits + linear(hidden, self.output_weight).squeeze(1)


class EmbeddingActor(OptimisedActor):
    """Logits from language embeddings, which may partly be given.

    Raises:
        ConfigurationError: the given embeddings are not one finite vector for each language.
    """

    kind = "lan"
    scales_rewards = True
    has_embeddings = True

    def _make_network(self, initial: np.ndarray, settings: ActorSettings) -> nn.Module:
        fixed = settings.embeddings
        if fixed is None:
            fixed = torch.empty(self.languages, 0)
        if fixed.dim() != 2 or len(fixed) != self.languages:
            raise ConfigurationError(
                f"--embedding-file holds {len(fixed)} vectors for {self.languages} languages: give one for each of "
                "--lang-pairs, in their order"
            )
        if not fixed.isfinite().all():
            raise ConfigurationError(
                "--embedding-file holds numbers that are not finite, but logits are computed from them: correct them"
            )
        learned_dim = settings.embed_dim if settings.lan_embed_dim is None else settings.lan_embed_dim
        fixed = fixed.detach().cpu().to(torch.float64, copy=True)
        return EmbeddingNetwork(log_tensor(initial), fixed, learned_dim, settings.embed_dim, settings.seed)
