"""What every actor that scores sentence pairs does."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from fairseq_knn.sampling.instance_actors.settings import InstanceActorSettings


class InstanceActor(nn.Module, ABC):
    """Features of a sentence pair, then a linear layer that starts at zero: at first all scores are equal.

    A score depends on its own pair alone, not on padding or on the rest of the batch.

    Attributes:
        score_type: ``sigmoid`` (scores between 0 and 1, at first 0.5) or ``exp`` (above 0, at first 1).
        padding: the token that does not count.
    """

    def __init__(self, settings: InstanceActorSettings, features: int) -> None:
        super().__init__()
        self.score_type = settings.score_type
        self.padding = settings.padding
        self.output = nn.Linear(features, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @abstractmethod
    def features(self, source: Tensor, target: Tensor) -> Tensor:
        """Float32 (B, features) of tokens, int64 (B, S) and (B, T)."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Scores of sentence pairs, float32 (B,), for what :meth:`logits` takes."""
        logits = self.logits(source, target)
        return logits.exp() if self.score_type == "exp" else logits.sigmoid()

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """What the scores are made of: in the same order, and apart where float32 has no score between or above.

        Args:
            source: tokens, int64 (B, S), padded at either end.
            target: tokens, int64 (B, T), padded at either end.

        Returns:
            float32 (B,).
        """
        logits: Tensor = self.output(self.features(source, target)).squeeze(-1)
        return logits
