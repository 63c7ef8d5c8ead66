"""What an actor that scores sentence pairs is made of."""

from dataclasses import dataclass

from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError

SCORE_TYPES = ("sigmoid", "exp")


@dataclass(frozen=True)
class InstanceActorSettings:
    """Sizes of what an actor will see, and its own.

    Args:
        source_vocabulary, target_vocabulary: sizes of the dictionaries.
        padding: the token that fills up short sentences, in both.
        embed_dim: width of the actor, and of its own embeddings.
        score_type: what makes a positive score of its output, ``sigmoid`` or ``exp``.
        train_embeddings: whether its own embeddings are trained; if not, they stay as they were drawn.
        model_embeddings: those of the translation model, for source and target, to be used instead: read whenever the
            actor is called, and neither trained nor saved with it.
        seed: of what is drawn for it.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    source_vocabulary: int
    target_vocabulary: int
    padding: int
    embed_dim: int = 32
    score_type: str = "sigmoid"
    train_embeddings: bool = True
    model_embeddings: tuple[Tensor | nn.Module, Tensor | nn.Module] | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.score_type not in SCORE_TYPES:
            raise ConfigurationError(
                f"--out-score-type is {self.score_type!r}, but scores are made by {' or '.join(SCORE_TYPES)}: choose "
                "one of them"
            )
        if self.embed_dim < 1:
            raise ConfigurationError(
                f"--data-actor-embed-dim is {self.embed_dim}, but it is the width of the actor's embeddings: "
                "choose 1 or more"
            )
