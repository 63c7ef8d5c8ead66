"""The multilingual task trains in two directions, and builds and uses a datastore for each."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from omegaconf import OmegaConf

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import UserError
from fairseq_knn.tasks.argparse_dataclass import namespace_of
from tests import cli, toy

KNN = "translation_multi_simple_epoch_knn"
TASK = ("--lang-pairs", "de-en,en-de", "--langs", "de,en", "--decoder-langtok")
SIZES = (
    *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1),
    *("--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--encoder-ffn-embed-dim", 48),
    *("--decoder-ffn-embed-dim", 48, "--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
    "--share-all-embeddings",
)
SENTENCES = 45  # of the test split: not a multiple of eight


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data with one dictionary for both languages, which the task demands."""
    path = tmp_path_factory.mktemp("data")
    old = {side: Dictionary.load(str(toy.DOMAIN / f"dict.{side}.txt")) for side in ("de", "en")}
    joint = Dictionary()
    for dictionary in old.values():
        for symbol in dictionary.symbols[dictionary.nspecial :]:
            joint.add_symbol(symbol)
    for side in old:
        joint.save(str(path / f"dict.{side}.txt"))

    def translated(source: Path, split: str, side: str) -> list[torch.Tensor]:
        symbols = old[side].symbols
        return [
            torch.tensor([joint.index(symbols[token]) for token in sentence])
            for sentence in toy.read_side(source, split, side)[:300]
        ]

    toy.write_split(path, "train", *(translated(toy.GENERAL, "train", side) for side in ("de", "en")))
    toy.write_split(path, "test", *(translated(toy.DOMAIN, "test", side)[:SENTENCES] for side in ("de", "en")))
    return path


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.train(
        tmp_path_factory.mktemp("model"),
        *("--task", KNN, *TASK, *SIZES),
        data=data,
    )


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("en", "de")])
def test_a_direction(source: str, target: str, data: Path, model: Path, tmp_path: Path) -> None:
    def generate(*arguments: object, task: str = "translation_multi_simple_epoch_knn") -> cli.Run:
        return cli.generate(
            *(data, "--task", task, *TASK, "--source-lang", source, "--target-lang", target),
            *("--path", model, "--gen-subset", "test", "--beam", 2, *arguments),
        )

    path = ("--knn-datastore-path", tmp_path)
    built = generate("--knn-mode", "build_datastore", "--score-reference", "--quiet", *path)
    assert f"{SENTENCES} of {SENTENCES} sentences of 'test' processed" in built.closing_line
    sentences = toy.read_side(data, "test", target)
    values = np.split(Datastore.load(tmp_path).values, np.cumsum([len(s) + 1 for s in sentences])[:-1])
    language = values[0][0]  # every target sentence begins with the token of its language
    for stored, sentence in zip(values, sentences, strict=True):
        np.testing.assert_array_equal(stored, [language, *sentence])

    stock = generate("--required-batch-size-multiple", 1, task="translation_multi_simple_epoch")
    base = generate("--knn-lambda", 0, *path)
    assert base.lines() == stock.lines()
    assert len(base.lines("H")) == SENTENCES
    assert f"{SENTENCES} of {SENTENCES} sentences of 'test' processed" in base.closing_line
    assert generate("--knn-lambda", 0.5, *path).lines("D") != base.lines("D")
    alone = generate("--knn-lambda", 1, "--knn-k", 1, "--beam", 1, *path)
    assert alone.bleu > 95


def test_combiners_are_not_trained_here(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train the combiner with --task translation_knn, one language pair at a time"):
        toy.train_combiner(
            tmp_path / "save",
            tmp_path / "none",
            *("--task", "translation_multi_simple_epoch_knn", *TASK, "--finetune-from-model", model),
            *("--knn-combiner", "adaptive"),
            data=data,
        )


SETTINGS = """
common: {cpu: true, user_dir: "???", seed: 3, log_format: simple}
task:
  _name: translation_multi_simple_epoch_knn
  data: ???
  lang_pairs: [de-en, en-de]
  langs: [de, en]
  decoder_langtok: true
  sampling_weights: {"main:de-en": 0.5, "main:en-de": 0.5}
model:
  _name: transformer
  encoder_layers: 1
  decoder_layers: 1
  encoder_embed_dim: 32
  decoder_embed_dim: 32
  encoder_ffn_embed_dim: 48
  decoder_ffn_embed_dim: 48
  encoder_attention_heads: 2
  decoder_attention_heads: 2
  share_all_embeddings: true
criterion: {_name: cross_entropy}
optimizer: {_name: adam}
lr_scheduler: {_name: fixed}
optimization: {lr: [0.01], max_update: 2}
dataset: {batch_size: 32, num_workers: 0, disable_validation: true}
checkpoint: {save_dir: checkpoints, no_epoch_checkpoints: true}
hydra: {job: {chdir: false}, run: {dir: "${checkpoint.save_dir}"}}
"""


def saved(checkpoint: Path) -> dict[str, Any]:
    return dict(torch.load(checkpoint, weights_only=False))


def updates(checkpoint: Path) -> int:
    return int(saved(checkpoint)["optimizer_history"][-1]["num_updates"])


def assert_translates(model: Path, data: Path, store: Path) -> None:
    """With a datastore of its own that is given no weight, as stock does without."""

    def generate(task: str, *arguments: object) -> cli.Run:
        direction = ("--source-lang", "de", "--target-lang", "en", "--gen-subset", "test", "--beam", 2)
        return cli.generate(data, "--task", task, *TASK, *direction, "--path", model, *arguments)

    path = ("--knn-datastore-path", store)
    generate(KNN, "--knn-mode", "build_datastore", "--score-reference", "--quiet", *path)
    stock = generate("translation_multi_simple_epoch", "--required-batch-size-multiple", 1)
    assert generate(KNN, "--knn-lambda", 0, *path).lines() == stock.lines()
    assert len(stock.lines("H")) == SENTENCES


def test_hydra_trains_it(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    run = cli.run(
        "fairseq-hydra-train",
        *("--config-dir", tmp_path, "--config-name", "tiny", f"common.user_dir={cli.PACKAGE}", f"task.data={data}"),
        directory=tmp_path,
    )
    assert run.status == 0, run.log[-2000:]
    checkpoint = tmp_path / "checkpoints" / "checkpoint_last.pt"
    assert updates(checkpoint) == 2
    assert_translates(checkpoint, data, tmp_path / "store")

    by_hydra = saved(checkpoint)["cfg"]["task"]
    weights = ("--sampling-weights", "{'main:de-en': 0.5, 'main:en-de': 0.5}")
    toy.train(checkpoint.parent, "--task", KNN, *TASK, *SIZES, *weights, "--max-update", 3, data=data)
    assert updates(checkpoint) == 3  # fairseq-train went on where the other program was
    by_flags = saved(checkpoint)["cfg"]["task"]
    assert by_hydra["langs"] != by_flags["langs"]  # a list, and text
    read = [
        namespace_of(OmegaConf.create(settings), TranslationMultiSimpleEpochTask.add_args)
        for settings in (by_hydra, by_flags)
    ]
    assert read[0] == read[1]


def test_checkpoints_of_the_argparse_time(data: Path, tmp_path: Path) -> None:
    """The stock task's hold a Namespace, and so did those of this task while it had flags alone."""
    stock = toy.train(tmp_path, "--task", "translation_multi_simple_epoch", *TASK, *SIZES, "--max-update", 2, data=data)
    state = saved(stock)
    settings = state["cfg"]["task"]
    assert isinstance(settings, Namespace)
    assert_translates(stock, data, tmp_path / "store")

    settings.task = settings._name = KNN
    torch.save(state, tmp_path / "old.pt")
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "old.pt")])
    assert task.knn.config.knn_mode == "inference"
    assert task.args.lang_pairs == ["de-en", "en-de"]
    assert task.args.left_pad_source is True
