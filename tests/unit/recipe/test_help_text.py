"""The help of a recipe."""

from fairseq_knn.recipe.composing import STEPS, compose
from fairseq_knn.recipe.help_text import help_text
from fairseq_knn.recipe.resolving import resolve


def shown(*overrides: str) -> list[str]:
    recipe = compose([], overrides)
    resolve(recipe)
    return help_text(recipe, []).splitlines()


def test_every_setting_has_its_default_and_its_meaning() -> None:
    lines = shown()
    heads = [line for line in lines if line.startswith("**")]
    assert [head.split("**")[1] for head in heads] == list(STEPS)
    assert "**tokenizer** (sentencepiece, default): from text to pieces and back" in "\n".join(heads)
    settings = [number for number, line in enumerate(lines) if line.startswith("  ") and " = " in line]
    assert len(settings) > 50
    assert all(lines[number].endswith(" (default)") for number in settings)
    assert all(lines[number + 1].startswith("      ") for number in settings)
    assert not any("!!!" in line for line in lines)


def test_what_is_missing_is_marked() -> None:
    lines = shown("pairs.file=???", "train_data=text", "train_data.source_file=a.txt", "model=???")
    assert "  pairs.file (str): !!! No pairs.file specified !!!" in lines
    assert "  model: !!! No model specified !!!" in lines
    assert "  train_data.target_file (str): !!! No train_data.target_file specified !!!" in lines
    assert "  train_data.source_file (str) = a.txt (command line)" in lines
    assert "Still missing: model, pairs.file, train_data.target_file" in lines
