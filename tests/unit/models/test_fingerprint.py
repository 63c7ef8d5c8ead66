"""One model has one fingerprint, in whatever style its checkpoint was saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils

import fairseq_knn  # noqa: F401  lets torch read fairseq's checkpoints
from fairseq_knn.models.knn_decoder import augment
from fairseq_knn.storage.digest import parameters_digest
from fairseq_knn.tasks.translation_knn import TranslationKnnConfig, TranslationKnnTask
from tests import toy
from tests.unit.models import tiny


def load(path: Path) -> Any:
    """Load a checkpoint like fairseq-generate does, to build a datastore with it."""
    config = TranslationKnnConfig(data=str(toy.DOMAIN), source_lang="de", target_lang="en", knn_mode="build_datastore")
    models, _ = checkpoint_utils.load_model_ensemble([str(path)], task=TranslationKnnTask.setup_task(config))
    return models[0]


def test_styles_of_checkpoints_have_one_fingerprint() -> None:
    models = [load(path) for path in (toy.BASE, toy.ARGS_STYLE)]
    prints = [model.decoder.knn_fingerprint for model in models]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64


def test_fingerprint_is_that_of_the_file_in_single_precision(tmp_path: Path) -> None:
    model = load(toy.BASE)
    fingerprint = model.decoder.knn_fingerprint
    assert fingerprint == parameters_digest(model.named_parameters())
    model.half()
    assert model.decoder.knn_fingerprint == fingerprint
    assert load(toy.perturbed_base(tmp_path / "other.pt")).decoder.knn_fingerprint != fingerprint


@pytest.mark.parametrize("name", ["transformer post-norm tied", "lstm tied", "fconv tied"])
def test_order_and_copies_of_tied_parameters_do_not_matter(name: str) -> None:
    prints = []
    for reverse in (False, True):
        model = tiny.build(name, seed=1)
        augment(model, "decoder_output", lambda: None)
        state = {key: value.clone() for key, value in model.state_dict().items()}  # tied ones are apart now
        model.load_state_dict(dict(sorted(state.items(), reverse=reverse)))
        prints.append(model.decoder.knn_fingerprint)
    assert prints[0] == prints[1] == parameters_digest(tiny.build(name, seed=1).named_parameters())


def test_buffers_do_not_matter() -> None:
    model = tiny.build("transformer post-norm tied")
    before = parameters_digest(model.named_parameters())
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    assert parameters_digest(model.named_parameters()) == before
