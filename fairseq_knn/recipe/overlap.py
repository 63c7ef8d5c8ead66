"""Held-out pairs that training has seen a side of."""

from pathlib import Path

from fairseq_knn.corpora.cleaning import comparison_key


def shared_pairs(train: tuple[Path, Path], held_out: tuple[Path, Path]) -> int:
    """How many held-out pairs have a sentence, on either side, that is in the training text on that side.

    Case, punctuation and spaces make no difference. Memory holds the held-out sentences alone.

    Args:
        train, held_out: source and target, a sentence a line.
    """
    seen: set[int] = set()
    for learned, kept in zip(train, held_out, strict=True):
        lines: dict[str, list[int]] = {}
        with kept.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                lines.setdefault(comparison_key(line), []).append(number)
        with learned.open(encoding="utf-8") as file:
            for line in file:
                seen.update(lines.get(comparison_key(line), ()))
    return len(seen)
