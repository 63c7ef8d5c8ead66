"""The workflow of knn-transformers with the example script, on a small text and a small model."""

import importlib
import json
import math
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fairseq_knn import Datastore
from fairseq_knn.clustering import clusters_of
from tests import cli

WORDS = [f"w{number}" for number in range(60)]


def text(lines: int, seed: int) -> str:
    """Lines of a chain of words that is easily learned by heart, but not by a network in two epochs."""
    chain, draw = random.Random(0), random.Random(seed)
    following = {word: chain.sample(WORDS, 2) for word in WORDS}
    result = []
    for _ in range(lines):
        words = [draw.choice(WORDS)]
        while len(words) < 12:
            words.append(draw.choices(following[words[-1]], [0.9, 0.1])[0])
        result.append(" ".join(words) + "\n")
    return "".join(result)


@pytest.fixture(scope="module")
def run_clm() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(cli.ROOT / "examples"))
        return importlib.import_module("run_clm")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with texts and an untrained model with its tokenizer."""
    directory = tmp_path_factory.mktemp("work")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<unk>", *WORDS])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(directory / "base")
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=61, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    GPT2LMHeadModel(config).save_pretrained(directory / "base")
    (directory / "train.txt").write_text(text(300, 1))
    (directory / "valid.txt").write_text(text(30, 2))
    return directory


def options(work: Path, model: Path, *further: object) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--dstore_dir", str(work / "store")),
        *("--train_file", str(work / "train.txt"), "--validation_file", str(work / "valid.txt")),
        *("--stride", "16", "--knn_temp", "10", "--no-knn_gpu"),
        *map(str, further),
    ]


def results(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "eval_results.json").read_text())
    return content


@pytest.fixture(scope="module")
def trained(run_clm: ModuleType, work: Path) -> Path:
    """Fine-tuned, interrupted after the first epoch."""
    model = work / "trained"
    flags = ("--do_train", "--output_dir", model, "--learning_rate", 3e-3, "--num_train_epochs", 2)
    stop = pytest.MonkeyPatch()
    training = importlib.import_module("clm_training").Training
    stop.setattr(training, "without_progress", lambda self, patience: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run_clm.main(options(work, work / "base", *flags)) == 130
    stop.undo()
    assert len(json.loads((model / "training.json").read_text())["losses"]) == 1
    assert run_clm.main(options(work, work / "base", *flags)) == 0
    losses = json.loads((model / "training.json").read_text())["losses"]
    assert len(losses) == 2
    assert losses[1] < losses[0] < math.log(60)
    return model


@pytest.fixture(scope="module")
def store(run_clm: ModuleType, work: Path, trained: Path) -> Path:
    """Datastore, index and clusters in one go."""
    steps = ("--save_knnlm_dstore", "--eval_subset", "train", "--do_eval", "--dstore_size", 3599)
    assert run_clm.main(options(work, trained, *steps, "--build_index", "--min_recall", 0.3)) == 0
    assert run_clm.main(options(work, trained, "--cluster_dstore", "--num_clusters", 40)) == 0
    return work / "store"


def test_every_token_but_the_first_is_stored_in_order(work: Path, store: Path) -> None:
    datastore = Datastore.load(store)
    words = (work / "train.txt").read_text().split()
    np.testing.assert_array_equal(datastore.values, [WORDS.index(word) + 1 for word in words[1:]])
    assert datastore.continues is not None
    assert datastore.continues[:-1].all()
    assert (datastore.path / "index.faiss").exists()
    assert clusters_of(datastore) == ["kmeans"]


def test_perplexities(run_clm: ModuleType, work: Path, trained: Path, store: Path, tmp_path: Path) -> None:
    measured = {}
    for name, flags in {
        "base": (),
        "knn": ("--knn", "--k", 64, "--lmbda", 0.5),
        "retomaton": ("--retomaton", "--k", 64, "--lmbda", 0.5, "--min-knns", 4, "--members", "kmeans"),
        "searching": ("--retomaton", "--k", 64, "--lmbda", 0.5, "--no_pointer"),
    }.items():
        output = tmp_path / name
        assert run_clm.main(options(work, trained, "--do_eval", "--output_dir", output, *flags)) == 0
        measured[name] = results(output)
    assert measured["base"]["eval_tokens"] == 30 * 12 - 1
    assert measured["knn"]["perplexity"] < 0.8 * measured["base"]["perplexity"]
    assert measured["retomaton"]["perplexity"] < 0.9 * measured["base"]["perplexity"]
    assert 0.1 < measured["retomaton"]["knn_foss"] < 1
    assert measured["searching"]["perplexity"] == pytest.approx(measured["knn"]["perplexity"], rel=1e-3)
    # What a batch holds changes nothing.
    alone = tmp_path / "alone"
    flags = ("--retomaton", "--k", 64, "--lmbda", 0.5, "--min-knns", 4, "--members", "kmeans")
    one = ("--do_eval", "--output_dir", alone, "--per_device_eval_batch_size", 1)
    assert run_clm.main(options(work, trained, *one, *flags)) == 0
    assert results(alone)["perplexity"] == pytest.approx(measured["retomaton"]["perplexity"], rel=1e-3)
    assert results(alone)["knn_searched_steps"] == measured["retomaton"]["knn_searched_steps"]


def test_goes_on_with_a_prompt(
    run_clm: ModuleType, work: Path, trained: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--prompt", "w3 w4", "--retomaton", "--k", 16, "--fp16")
    assert run_clm.main(options(work, trained, *flags)) == 1
    assert "in the precision it was stored with" in capsys.readouterr().err
    assert run_clm.main(options(work, trained, *flags[:-1])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == [f"{number}: w3 w4" for number in range(5)]


def test_mistakes_are_one_sentence(
    run_clm: ModuleType, work: Path, trained: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, message in (
        ((), "there is nothing to do: pass one of --do_train"),
        (("--do_train",), "--do_train needs a directory for the model"),
        (("--do_eval", "--eval_subset", "test"), "there is no test text: give --test_file"),
        (("--do_eval", "--knn", "--dstore_size", 7), "--dstore_size is 7, but"),
        (("--do_eval", "--dataset_name", "wikitext"), "--dataset_name needs the package datasets"),
        (("--do_eval", "--retomaton", "--members", "other"), "other"),
        (("--do_eval", "--stride", 0), "--stride is 0"),
        (("--save_knnlm_dstore", "--eval_subset", "train"), "holds a finished datastore"),
    ):
        assert run_clm.main(options(work, trained, *flags)) == 1, flags
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("run_clm: error: "), error
        assert message in error
    assert run_clm.main(["--model_name_or_path", str(work / "nothing"), "--do_eval"]) == 1
    assert "nothing is not loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((cli.ROOT / "configs/knn_lm/transformers").glob("*")), ids=lambda path: path.name
)
def test_published_models(run_clm: ModuleType, path: Path) -> None:
    args = run_clm.parser().parse_args([f"@{path}", "--do_eval", "--retomaton"])
    assert args.model_name_or_path == f"neulab/{path.stem}-finetuned-wikitext103"
    assert (args.k, args.lmbda, args.knn_temp, args.stride, args.dataset_config_name) == (
        *(1024, 0.25, 1.0, 512),
        "wikitext-103-raw-v1",
    )


def test_every_option_is_documented(run_clm: ModuleType) -> None:
    page = (cli.ROOT / "docs" / "transformers.md").read_text()
    options = {action.dest for action in run_clm.parser()._actions} - {"help"}
    assert {option for option in options if f"`--{option}`" not in page} == set()
