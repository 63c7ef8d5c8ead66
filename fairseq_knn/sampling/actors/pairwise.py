"""An actor that looks at every pair of languages."""

from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors.free_logits import FreeLogitsActor


def pairwise_loss(logits: Tensor, similarity: Tensor) -> Tensor:
    """``-sum_{k,i} S_{k,i} P_k P_i`` with P = softmax(logits); its gradient is ``-P ((S + S^T) P - 2 P^T S P)``.

    Args:
        logits: (n,).
        similarity: S, (n, n).
    """
    probabilities = logits.softmax(dim=0)
    return -(probabilities @ similarity @ probabilities)


class PairwiseActor(FreeLogitsActor):
    """Raises the similarity of two languages that are drawn independently, one to train on and one to develop with.

    So a development language counts as much as it is trained on, and rewards and utility are not looked at. Row k and
    column k of the similarities must be of the same language. The authors' code minimised this sum, which lowers the
    probability of languages whose gradients agree; here it is maximised.
    """

    kind = "base_weight"
    scales_rewards = False

    def check_development(self, languages: int) -> None:
        if languages != self.languages:
            raise ConfigurationError(
                f"the actor {self.kind!r} pairs the training languages with themselves, but --lang-pairs has "
                f"{self.languages} and --eval-lang-pairs {languages}: give both the same pairs in the same order, or "
                "choose another --data-actor"
            )

    def _loss(self, logits: Tensor, rewards: Tensor, similarity: Tensor) -> Tensor:
        return pairwise_loss(logits, similarity)
