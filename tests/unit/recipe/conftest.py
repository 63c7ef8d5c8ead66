"""Text in two made-up languages."""

import random
from pathlib import Path

import pytest


def sentences(alphabet: str, n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(alphabet, k=rng.randint(2, 7))) for _ in range(60)]
    return [" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(n)]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Source and target, line by line: "q" and "ø" are in the first line of the source alone, "ж" and "ÿ" in the target
    alone, "ÿ" in its first line."""
    folder = tmp_path_factory.mktemp("texts")
    source = ["qø first", *sentences("abcdefghijkl", 200, 1)]
    target = ["ÿ erst", *sentences("mnoprstuvwжé", 200, 2)]
    for name, lines in (("train.aaa", source), ("train.bbb", target)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder / "train.aaa", folder / "train.bbb"
