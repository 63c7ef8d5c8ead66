"""Coming from knn-transformers: a store written as its run_clm does becomes ours, and works."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from fairseq_knn import KNNWrapper, RetomatonWrapper
from fairseq_knn.cli.main import main
from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore

VOCABULARY, DIMENSION, WINDOW, STRIDE, TOKENS = 90, 32, 64, 16, 256
SIZES = ("--block-size", WINDOW, "--stride", STRIDE)


def gpt2(directory: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=WINDOW, n_embd=DIMENSION, n_layer=2, n_head=2, initializer_range=0.2
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpt2(tmp_path_factory.mktemp("model") / "gpt2", seed=0)


def write(directory: Path, model_type: str, keys: np.ndarray, values: np.ndarray) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    prefix = directory / f"dstore_{model_type}_{len(values)}_{keys.shape[1]}"
    for half, array in (("keys", keys.astype(np.float16)), ("vals", values[:, None].astype(np.int32))):
        np.memmap(f"{prefix}_{half}.npy", array.dtype, "w+", shape=array.shape)[:] = array
    return prefix


@pytest.fixture(scope="module")
def store(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A window moves over two groups of texts; what is new in it is stored, but for the first token of a group."""
    network: Any = GPT2LMHeadModel.from_pretrained(model).eval()
    states: list[torch.Tensor] = []
    network.transformer.h[-1].mlp.register_forward_pre_hook(lambda _, given: states.append(given[0].detach()))
    rng = np.random.default_rng(0)
    keys, values = [], []
    for length in (TOKENS, WINDOW):
        tokens = torch.from_numpy(rng.integers(0, VOCABULARY, length))
        for first in range(0, length, STRIDE):
            window = tokens[max(0, first + STRIDE - WINDOW) : first + STRIDE]
            labels = window.clone()
            labels[:-STRIDE] = -100
            with torch.no_grad():
                network(window.unsqueeze(0))
            stored = labels[1:] != -100
            keys.append(states.pop()[0, :-1][stored].numpy())
            values.append(labels[1:][stored].numpy())
    directory = tmp_path_factory.mktemp("store")
    return write(directory, "gpt2", np.concatenate(keys), np.concatenate(values))


def convert(old: Path, new: Path, model: Path | str, *arguments: object) -> int:
    return main([str(argument) for argument in ("convert", old, new, "--transformers", model, *arguments)])


def test_a_causal_models_store(store: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(store, tmp_path, model, *SIZES) == 0
    printed = capsys.readouterr().out
    assert f"2 windows of {WINDOW} stored tokens were computed again, and the keys of 2 agree" in printed
    assert "begin is not recorded: pointers go on" in printed
    ours = Datastore.load(tmp_path)
    entries = TOKENS + WINDOW - 2
    assert ours.plan is not None
    assert (ours.entries, ours.key, ours.plan.kind) == (entries, "ffn_input", LANGUAGE_MODEL)
    np.testing.assert_array_equal(ours.values, np.fromfile(f"{store}_vals.npy", np.int32))
    np.testing.assert_array_equal(
        ours.keys(0, entries), np.fromfile(f"{store}_keys.npy", np.float16).reshape(-1, DIMENSION)
    )
    assert ours.continues is not None
    assert np.flatnonzero(~ours.continues).tolist() == [entries - 1]


def test_it_serves_the_model(store: Path, model: Path, tmp_path: Path) -> None:
    """What was stored is foreseen: the model alone knows nothing of the random text."""
    assert convert(store.parent, tmp_path, model, *SIZES) == 0
    network: Any = GPT2LMHeadModel.from_pretrained(model).eval()
    # A window as it was when the store was written: its keys are found again.
    values = np.fromfile(f"{store}_vals.npy", np.int32)[STRIDE - 1 : STRIDE - 1 + WINDOW]
    tokens = torch.from_numpy(values.astype(np.int64)).unsqueeze(0)
    labels = tokens.clone()
    labels[:, :-STRIDE] = -100
    losses = {}
    for wrapper in (None, KNNWrapper(tmp_path, k=4, lmbda=0.5), RetomatonWrapper(tmp_path, k=4, lmbda=0.5)):
        if wrapper is not None:
            wrapper.break_into(network)
        with torch.no_grad():
            losses[type(wrapper)] = float(network(input_ids=tokens, labels=labels).loss)
        if wrapper is not None:
            wrapper.break_out()
    assert max(losses[KNNWrapper], losses[RetomatonWrapper]) < losses[type(None)] - 1


def test_an_encoder_decoder_models_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    config = T5Config(vocab_size=VOCABULARY, d_model=DIMENSION, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    values = np.array([5, 6, 1, 7, 1, 8, 9])
    old = write(tmp_path, "t5", np.random.default_rng(0).normal(size=(7, DIMENSION)), values)
    assert convert(old, tmp_path / "new", tmp_path / "t5") == 0
    printed = capsys.readouterr().out
    assert "so its keys are not computed again" in printed
    assert "7 entries of dimension 32 in 3 sentences" in printed
    ours = Datastore.load(tmp_path / "new")
    assert ours.plan is not None
    assert ours.plan.kind == TRANSLATION
    assert ours.continues is not None
    assert ours.continues.tolist() == [True, True, False, True, False, True, False]


def test_what_does_not_belong_together_is_refused(
    store: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, new = gpt2(tmp_path / "other", seed=1), tmp_path / "new"
    large = write(tmp_path / "large", "gpt2", np.ones((5, DIMENSION)), np.array([1, 2, VOCABULARY, 3, 4]))
    for old, name, arguments, complaint in (
        (store, other, SIZES, "and the keys of 0 agree: name the model .* insist with --knn-allow-mismatch"),
        (store, model, SIZES[:2], "--stride is 512, but the window of --block-size has 64 tokens"),
        (store, model, ("--stride", 8), r"and the keys of \d agree: .*--stride as they were then"),
        (store, model, (*SIZES, "--knn-key", "ffn_output"), r"and the keys of 0 agree: name"),
        (store, model, ("--stride", 0), "--stride is 0, but must be at least 1"),
        (store, model, ("DATA", *SIZES), "DATA .*there is no DATA"),
        (store, tmp_path / "none", SIZES, "which is not loaded .*: name the directory of a model"),
        (large, model, SIZES, f"holds token {VOCABULARY}, but the vocabulary of .* has {VOCABULARY} symbols"),
    ):
        assert convert(old, new, name, *arguments) == 1, complaint
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(f"^fairseq-knn: error: .*{complaint}", error), error
        assert not new.exists()
    assert convert(store, new, other, *SIZES, "--knn-allow-mismatch") == 0


def test_a_store_too_small_to_be_checked(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write(tmp_path, "gpt2", np.ones((30, DIMENSION)), np.arange(30))
    assert convert(old, tmp_path / "new", model, *SIZES) == 0
    assert "is too small for its keys to be computed again" in capsys.readouterr().out
