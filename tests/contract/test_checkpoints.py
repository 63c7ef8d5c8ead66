"""torch loads fairseq's checkpoints with ``weights_only``, and nothing else."""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.multilingual.multilingual_utils import LangTokStyle
from fairseq.logging.meters import AverageMeter, TimeMeter
from omegaconf import OmegaConf

from fairseq_knn import compat
from tests import cli, toy


@pytest.fixture
def nothing_allowed() -> Iterator[None]:
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.add_safe_globals(allowed)


@pytest.mark.usefixtures("nothing_allowed")
@pytest.mark.parametrize("checkpoint", [toy.BASE, toy.ARGS_STYLE], ids=["cfg", "args"])
def test_both_styles(checkpoint: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(checkpoint)
    compat.allow_fairseq_checkpoints()
    assert torch.load(checkpoint, weights_only=True)["model"]


def test_with_optimiser_state(datastore: Path, tmp_path: Path) -> None:
    """Trained, resumed and translated with: the whole life of a checkpoint."""
    small = (
        *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1),
        *("--encoder-embed-dim", 16, "--decoder-embed-dim", 16, "--task", "translation_knn"),
    )
    path = toy.train(tmp_path, *small, "--max-update", 2)
    saved = torch.load(path, weights_only=True)
    assert saved["last_optimizer_state"]["state"]
    assert saved["optimizer_history"][-1]["num_updates"] == 2
    toy.train(tmp_path, *small, "--max-update", 3)
    assert torch.load(path, weights_only=True)["optimizer_history"][-1]["num_updates"] == 3
    run = toy.translate(datastore, "--knn-lambda", 0, "--knn-allow-mismatch", "--beam", 1, "--max-len-b", 5, model=path)
    assert len(run.lines("H")) == toy.TEST_SENTENCES


def test_what_checkpoints_hold_besides_tensors(tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(lang_tok_style=LangTokStyle.multilingual, lr=[0.1]),
        "cfg": OmegaConf.create({"model": {"layers": [1, 2], "any": None}}),
        "extra_state": {
            "best": np.float64(1.5),
            "sizes": np.arange(3, dtype=np.int32),
            "train_meters": OrderedDict(loss=AverageMeter(), wps=TimeMeter()),
        },
    }
    torch.save(content, tmp_path / "checkpoint.pt")
    compat.allow_fairseq_checkpoints()
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert loaded["extra_state"]["best"] == 1.5
    assert loaded["extra_state"]["train_meters"]["loss"].count == 0
    assert loaded["cfg"].model.layers == [1, 2]
    assert loaded["args"].lang_tok_style is LangTokStyle.multilingual


class Foreign:
    """Not among the classes that checkpoints hold."""


def test_a_foreign_class_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Foreign()}, tmp_path / "checkpoint.pt")
    compat.allow_fairseq_checkpoints()
    with pytest.raises(pickle.UnpicklingError, match="Foreign"):
        torch.load(tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Foreign"):
        cli.generate(toy.DOMAIN, "--task", "translation", "--path", tmp_path / "checkpoint.pt")
