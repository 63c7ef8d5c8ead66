"""Stock fairseq-validate, which makes the task that the checkpoint was trained with."""

import json
import re
from pathlib import Path

import pytest

from tests import cli, toy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.train(
        tmp_path_factory.mktemp("model"),
        *("--task", "translation_knn", "--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1),
        *("--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--encoder-ffn-embed-dim", 32),
        *("--decoder-ffn-embed-dim", 32, "--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
    )


def validate(model: Path, *arguments: object) -> cli.Run:
    return cli.call(
        *("fairseq-validate", toy.DOMAIN, "--path", model, "--valid-subset", "test", "--batch-size", 50),
        *("--user-dir", cli.PACKAGE, "--cpu", "--num-workers", 0, "--log-format", "json", *arguments),
    )


def loss(run: cli.Run) -> float:
    found = re.findall(r'{.*"test_loss": .*}', run.output)
    assert len(found) == 1, run.output[-2000:]
    return float(json.loads(found[0])["test_loss"])


def test_a_model_trained_with_our_task_is_a_plain_model(model: Path) -> None:
    assert loss(validate(model, "--task", "translation")) == loss(validate(model, "--task", "translation_knn"))


def test_with_neighbours(model: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, split="test", model=model)
    with_datastore = ("--task", "translation_knn", "--knn-datastore-path", tmp_path, "--knn-k", 1)
    run = validate(model, *with_datastore, "--knn-lambda", 0.6)
    assert "203 of 203 sentences of 'test' processed" in run.closing_line
    assert loss(run) < 1  # bit: half of the weight is on the reference
    alone = validate(model, *with_datastore, "--knn-lambda", 0)
    assert loss(alone) == loss(validate(model, "--task", "translation"))
