"""Stock fairseq drops sentences; with our tasks it does so in training alone."""

from pathlib import Path
from typing import Any

import pytest

from fairseq_knn.tasks.translation_knn import TranslationKnnTask
from tests import cli, toy


def processed(task: str, *arguments: object) -> int:
    run = cli.generate(
        *(toy.DOMAIN, "--task", task, "--path", toy.BASE, "--gen-subset", "test", "--score-reference", *arguments),
    )
    return len(run.lines("H"))


@pytest.mark.parametrize(
    ("limits", "left"), [(("--max-tokens", 12000), 200), (("--batch-size", 100), 200), (("--batch-size", 1), 202)]
)
def test_stock_drops_the_last_sentences(limits: tuple[object, ...], left: int, datastore: Path) -> None:
    """When this fails, stock has changed and our batch iterator may become simpler."""
    assert processed("translation", *limits) == left
    ours = ("--knn-datastore-path", datastore, "--knn-lambda", 0)
    assert processed("translation_knn", *limits, *ours) == toy.TEST_SENTENCES


def test_training_keeps_the_multiple_and_validation_sees_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainer.get_train_iterator is the one caller that passes ``update_epoch_batch_itr``."""
    trained: list[int] = []
    validated: list[int] = []
    for name, sizes in (("train_step", trained), ("valid_step", validated)):
        original = getattr(TranslationKnnTask, name)

        def step(
            self: Any, sample: Any, *args: Any, original: Any = original, sizes: list[int] = sizes, **kwargs: Any
        ) -> Any:
            sizes.append(len(sample["id"]))
            return original(self, sample, *args, **kwargs)

        monkeypatch.setattr(TranslationKnnTask, name, step)
    cli.call(
        "fairseq-train",
        *(toy.DOMAIN, "--user-dir", cli.PACKAGE, "--task", "translation_knn", "--cpu", "--num-workers", 0),
        *("--train-subset", "valid", "--valid-subset", "test", "--max-epoch", 2, "--max-tokens", 500),
        *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 16),
        *("--decoder-embed-dim", 16, "--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
        *("--encoder-ffn-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--optimizer", "adam", "--lr", 0.01),
        *("--save-dir", tmp_path, "--no-save"),
    )
    assert len(trained) > 4
    assert all(size % 8 == 0 for size in trained)
    assert sum(trained) == 2 * 200  # of 201: stock drops the rest of every epoch
    assert sum(validated) == 2 * toy.TEST_SENTENCES
