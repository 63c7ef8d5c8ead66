"""Sentences that are longer than a model takes, told in a sentence."""

from typing import Any

from fairseq_knn.errors import ConfigurationError


def refuse_too_long(indices: Any, dataset: Any, max_positions: Any, lengths: str) -> None:
    """
    Args:
        indices: of the sentences that are looked at.
        dataset: fairseq's, which has them.
        max_positions: that the model takes, of the source and of the target.
        lengths: what these are counted in, for the message.

    Raises:
        ConfigurationError: there are such sentences.
    """
    _, ignored = dataset.filter_indices_by_size(indices, max_positions)
    if len(ignored):
        raise ConfigurationError(
            f"{len(ignored)} sentences are longer than the {max_positions} {lengths} the model takes "
            f"(the first: {sorted(map(int, ignored))[:5]}): pass --skip-invalid-size-inputs-valid-test to leave them "
            "out, or raise --max-source-positions and --max-target-positions if the model allows it"
        )
