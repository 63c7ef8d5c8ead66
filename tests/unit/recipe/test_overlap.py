"""Held-out pairs that training has seen a side of."""

from pathlib import Path

from fairseq_knn.recipe.overlap import shared_pairs


def files(folder: Path, name: str, pairs: list[tuple[str, str]]) -> tuple[Path, Path]:
    paths = folder / f"{name}.aaa", folder / f"{name}.bbb"
    for side, path in enumerate(paths):
        path.write_text("".join(f"{pair[side]}\n" for pair in pairs))
    return paths


def test_pairs_that_share_a_side(tmp_path: Path) -> None:
    train = files(tmp_path, "train", [("Go on.", "Weiter."), ("A tree", "Ein Baum"), ("A tree", "Baum")])
    held_out = [("go on", "Fahr fort"), ("Stop.", "weiter!"), ("A tree.", "ein baum"), ("Weiter", "Go on")]
    assert shared_pairs(train, files(tmp_path, "test", held_out)) == 3
    assert shared_pairs(train, files(tmp_path, "valid", [("Weiter", "Go on")])) == 0
