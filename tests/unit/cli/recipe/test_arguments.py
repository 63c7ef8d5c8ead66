"""Recipes, steps and settings on the command line."""

from pathlib import Path

import pytest

from fairseq_knn.cli.recipe.arguments import Asked, sort_out
from fairseq_knn.errors import ConfigurationError


def test_arguments_are_told_apart_by_their_form(tmp_path: Path) -> None:
    odd = tmp_path / "a=recipe"
    odd.touch()
    asked = sort_out("test", ["model", "r.yaml", "model.dim=3", str(odd), "code.user_dir=x.yaml", "tokenizer"])
    assert asked == Asked([Path("r.yaml"), odd], ["model", "tokenizer"], ["model.dim=3", "code.user_dir=x.yaml"])


def test_a_file_by_the_name_of_a_step_is_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").touch()
    long = "pairs.file=" + 300 * "a"
    assert sort_out("test", ["model", long]) == Asked([], ["model"], [long])


@pytest.mark.parametrize(
    ("action", "arguments", "message"),
    [
        ("help", ["modell"], r"there is no step 'modell': did you mean model\?"),
        ("test", ["r.yaml"], "test needs a step: name one of code, pairs"),
        ("train", ["model"], "train takes all steps, and model is one: leave it out"),
    ],
)
def test_what_an_action_does_not_take(action: str, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sort_out(action, arguments)
