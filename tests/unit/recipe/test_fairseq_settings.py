"""Components and the configuration of stock fairseq-hydra-train."""

from pathlib import Path
from typing import Any

import pytest

import fairseq_knn
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe import components
from fairseq_knn.recipe.composing import Recipe, compose
from fairseq_knn.recipe.fairseq_settings import fairseq_settings
from fairseq_knn.recipe.resolving import resolve
from fairseq_knn.recipe.user_code import user_dir
from fairseq_knn.recipe.yaml_files import resolved

PIECES = {"_name": "sentencepiece", "sentencepiece_model": "pieces.model"}


def checked(*overrides: str) -> Recipe:
    recipe = compose([], overrides)
    resolve(recipe)
    components.check(recipe)
    return recipe


def configuration(*overrides: str) -> dict[str, Any]:
    return fairseq_settings(checked(*overrides), Path("data"), PIECES)


def test_the_default_recipe() -> None:
    made = configuration()
    model = made["model"]
    for side in ("encoder", "decoder"):
        assert model[f"{side}_embed_dim"] == 128
        assert model[f"{side}_ffn_embed_dim"] == 512
        assert model[f"{side}_layers"] == 4
        assert model[f"{side}_attention_heads"] == 4
        assert model[f"{side}_normalize_before"] is True
    assert model["share_all_embeddings"] is True
    assert model["activation_dropout"] == 0.0
    assert made["task"] == {
        **{"_name": "translation_pairs", "data": "data", "source_lang": "eng", "target_lang": "fra"},
        "shuffle_window": 10_000,
    }
    assert made["bpe"] == PIECES
    assert made["dataset"]["batch_size"] == 32
    assert made["optimization"]["lr"] == [0.002]
    assert made["optimizer"] == {"_name": "adam", "adam_betas": "(0.9, 0.98)", "weight_decay": 0.0}
    assert made["lr_scheduler"] == {"_name": "inverse_sqrt", "warmup_updates": 1000}
    assert made["criterion"] == {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.1}
    assert made["common"]["user_dir"] == str(Path(fairseq_knn.__file__).parent)
    assert "distributed_training" not in made  # all GPUs


def test_the_last_epoch_is_kept_where_epochs_end_training() -> None:
    by_epochs = configuration("training.max_epoch=3")
    assert by_epochs["checkpoint"]["save_interval"] == by_epochs["dataset"]["validate_interval"] == 3
    by_updates = configuration("training.validate_every=50")
    assert by_updates["checkpoint"]["save_interval"] > 10_000
    assert by_updates["checkpoint"]["save_interval_updates"] == 50


def test_on_a_cpu_there_is_one_process() -> None:
    made = configuration("device.kind=cpu")
    assert made["common"]["cpu"] is True
    assert made["distributed_training"] == {"distributed_world_size": 1}


def test_settings_of_components_are_passed_on() -> None:
    made = configuration("model.activation_fn=gelu", "model.decoder_layers=2", "optimizer.adam_eps=1e-6")
    assert made["model"]["activation_fn"] == "gelu"
    assert (made["model"]["encoder_layers"], made["model"]["decoder_layers"]) == (4, 2)
    assert made["optimizer"]["adam_eps"] == 1e-6


def test_a_default_is_passed_on_where_the_component_has_it() -> None:
    recipe = checked(
        *("criterion=cross_entropy", "optimizer=sgd", "schedule=cosine", "optimizer.momentum=0.9"),
        *(
            "schedule.max_update=500",
            "model=lstm",
            "model.dropout=0.3",
            "model.encoder_embed_dim=64",
            "model.decoder_attention=false",
        ),
    )
    made = fairseq_settings(recipe, Path("data"), PIECES)
    assert made["criterion"] == {"_name": "cross_entropy"}
    assert made["optimizer"]["weight_decay"] == 0.0
    assert made["optimizer"]["momentum"] == 0.9
    assert "adam_betas" not in made["optimizer"]

    assert made["lr_scheduler"] == {"_name": "cosine", "warmup_updates": 1000, "max_update": 500}
    assert made["model"]["encoder_embed_dim"] == 64
    assert made["model"]["encoder_dropout_in"] == 0.3  # as lstm's own function fills it in
    assert made["model"]["decoder_attention"] == "False"
    kept = resolved(recipe)
    assert kept["model"] == {**{"_name": "lstm", "dropout": 0.3, "encoder_embed_dim": 64, "decoder_attention": "False"}}
    assert "label_smoothing" not in kept["criterion"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=lstn"], r"there is no model 'lstn': did you mean lstm\?"),
        (["model.dimm=3"], r"there is no setting model\.dimm: did you mean model\.dim\?"),
        (["optimizer.adam_esp=1e-6"], r"did you mean optimizer\.adam_eps\?"),
        (["optimizer.adam_eps=small"], r"optimizer\.adam_eps cannot be 'small'"),
        (["model=lstm", "model.layers=3"], r"model is lstm, which has no such setting: did you mean"),
        (["model=lstm", "model.encoder_layers=two"], r"model\.encoder_layers cannot be 'two'"),
        (["model=lstm", "model.encoder_bidirectional=3"], "it is true or false"),
        (["criterion=cross_entropy", "criterion.label_smoothing=0.2"], "which has no such setting"),
        (["task=speech_to_text"], "describes its settings by flags"),
        (["task.data=x"], r"there is no setting task\.data"),
    ],
)
def test_what_a_component_does_not_know_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        checked(*overrides)


def test_what_a_component_has_to_be_given_is_missing() -> None:
    assert "schedule.max_lr" in checked("schedule=triangular").missing
    assert not checked("schedule=triangular", "schedule.max_lr=0.1").missing


def test_code_of_the_user_has_to_bring_the_package_along(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which is no directory"):
        user_dir(str(tmp_path / "absent"))
    (tmp_path / "__init__.py").write_text("import fairseq\n# import fairseq_knn_not\n")
    with pytest.raises(ConfigurationError, match="imports fairseq_knn, whose task and hooks"):
        user_dir(str(tmp_path))
    (tmp_path / "loss.py").write_text("from fairseq_knn.tasks.translation_pairs import TranslationPairsTask\n")
    assert user_dir(str(tmp_path)) == str(tmp_path)
