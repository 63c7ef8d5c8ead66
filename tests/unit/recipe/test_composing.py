"""Defaults, YAML files and the command line become the settings of a recipe."""

from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import COMMAND_LINE, compose
from fairseq_knn.recipe.resolving import require, resolve
from fairseq_knn.recipe.settings import Settings


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_default() -> None:
    recipe = compose([], [])
    assert recipe.settings == Settings()
    assert not recipe.origins
    assert not recipe.missing


def test_the_command_line_goes_over_files_and_files_over_defaults(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "# English to French\nmodel: {dim: 64, layers: 2}\npairs:\n  valid: 7\n")
    second = write(tmp_path / "second.yaml", "model:\n  layers: 3\ntraining:\n")
    recipe = compose([first, second], ["model.heads=8", "model.layers=5"])
    model = recipe.settings.model
    assert (model.dim, model.layers, model.heads, model.dropout) == (64, 5, 8, 0.1)
    assert recipe.settings.pairs.valid == 7
    assert recipe.origins["model.dim"] == str(first)
    assert recipe.origins["model.layers"] == COMMAND_LINE
    assert compose([first], []).title == "English to French"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=2e-3", 0.002),
        ("optimizer.lr=1", 1.0),
        ("optimizer.adam_betas=(0.9, 0.999)", "(0.9, 0.999)"),
        ("model.pre_norm=false", False),
        ("train_data.batch_size=null", None),
        ("pairs.source=no", "no"),  # Norwegian, which is false in YAML
        ("training.save_dir=2024", "2024"),
        ("pairs.file=a: b #c.tsv", "a: b #c.tsv"),
        ("pairs.file=a #b.tsv", "a #b.tsv"),
        ("pairs.file='a #b.tsv'", "a #b.tsv"),
        ("code.user_dir=x=y", "x=y"),
    ],
)
def test_a_value_has_the_type_of_its_setting(override: str, value: object) -> None:
    step, _, name = override.partition("=")[0].partition(".")
    found = getattr(getattr(compose([], [override]).settings, step), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modell.dim=3", r"no step 'modell': did you mean model\?"),
        ("pairs.flie=x", r"no setting pairs.flie: did you mean pairs.file\?"),
        ("pairs=x", "pairs has no components"),
        ("model.dim=2.5", "model.dim is 2.5, but takes a whole number"),
        ("model.dim=true", "takes a whole number"),
        ("model.dim=null", "takes a whole number"),
        ("model.dropout=much", "model.dropout is much, but takes a number"),
        ("model.pre_norm=1", "takes true or false"),
        ("train_data.batch_size=[1]", "takes a whole number or null"),
        ("train_data.batch_size={", "cannot be read as YAML"),
        ("pairs.file=", "pairs.file= has no value behind it"),
    ],
)
def test_what_is_no_setting_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compose([], [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modell:\n  dim: 3\n", r"r.yaml: there is no step 'modell': did you mean model\?"),
        ("pairs:\n  flie: x\n", r"r.yaml: there is no setting pairs.flie: did you mean pairs.file\?"),
        ("model:\n  dim: big\n", "r.yaml: model.dim is big, but takes a whole number"),
        ("pairs:\n  source: no\n", "r.yaml: pairs.source is false, but takes text: put quotes around it"),
        ("model: 3\n", "r.yaml: model is 3, but a step has settings"),
        ("- model\n", "r.yaml is no recipe"),
        ("model: {dim: 3\n", "r.yaml is no sound YAML"),
        ("model:\n  dim: ${pairs.nothing}\n", "r.yaml is no sound YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compose([write(tmp_path / "r.yaml", text)], [])
    with pytest.raises(ConfigurationError, match=r"there is no recipe .*other\.yaml"):
        compose([tmp_path / "other.yaml"], [])


def test_what_is_missing_is_named_when_its_step_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "r.yaml", "pairs:\n  file: ???\ntest_data: text\n")
    recipe = compose([path], [])
    resolve(recipe)
    assert recipe.missing == {"pairs.file", "test_data.source_file", "test_data.target_file"}
    require(recipe, ("model",))
    with pytest.raises(ConfigurationError, match=r"no pairs\.file is specified: give pairs\.file=VALUE"):
        require(recipe, ("pairs", "tokenizer"))
    given = compose([path], ["pairs.file=x.tsv"])
    assert not given.missing


def test_another_component_starts_its_step_anew(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.yaml",
        "criterion: {label_smoothing: 0.2}\noptimizer: {lr: 0.1, weight_decay: 0.3}\n"
        "model: {dim: 64, activation_fn: gelu}\n",
    )
    recipe = compose([path], ["model.encoder_layers=1", "model=lstm", "optimizer=sgd", "criterion.label_smoothing=0.3"])
    assert recipe.settings.model._name == "lstm"
    assert recipe.extra["model"] == {"encoder_layers": 1}
    assert not recipe.is_given("model", "dim")
    assert recipe.settings.optimizer.lr == 0.1  # of the training, whatever makes the updates
    assert not recipe.is_given("optimizer", "weight_decay")
    assert recipe.settings.criterion.label_smoothing == 0.3


def test_what_follows_from_other_settings_is_filled_in() -> None:
    recipe = compose([], ["model.dim=64", "pairs.target=deu", "tokenizer.vocab_size=300"])
    resolve(recipe)
    settings = recipe.settings
    assert settings.model.ffn_dim == 256
    assert settings.pairs.directory == "recipes/eng-deu"
    assert settings.tokenizer.path == "recipes/eng-deu/eng-deu.300.model"
    assert settings.training.save_dir == "recipes/eng-deu/model"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dim=10", "model.heads=4"], "model.dim is 10 and model.heads 4"),
        (["model.dropout=1"], r"model\.dropout is 1\.0, but has to be at least 0 and below 1"),
        (["train_data.batch_size=null"], "neither train_data.batch_size nor train_data.max_tokens"),
        (["training.max_update=0"], "both 0"),
        (["device.kind=gpu"], "device.kind is 'gpu', but has to be auto or cpu or cuda"),
        (["device.kind=cpu", "device.fp16=true"], "half precision needs a GPU"),
        (["test_data=texts"], "test_data is 'texts', but has to be pairs or text"),
        (["training.validate_every=0"], "has to be at least 1"),
        (["pairs.directory=d", "training.save_dir=d/x/../binary/y"], "d/binary is for data"),
        (["training.seed=-1"], "training.seed is -1"),
        (["training.seed=5000000000"], "training.seed is 5000000000, but has to be at most"),
        (["optimizer.adam_betas=abc"], r"adam_betas is 'abc', but has to be two numbers"),
        (["optimizer.adam_betas=(0.9, 1.98)"], "from 0 to below 1"),
        (["optimizer.weight_decay=.nan"], "weight_decay is nan"),
        (["evaluation.lenpen=.inf"], "lenpen is inf"),
        (["schedule.warmup_updates=0"], "inverse_sqrt"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(compose([], overrides))
