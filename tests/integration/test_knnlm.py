"""Coming from kNN-LM, RetoMaton and efficient-knnlm: stores written as they write them become ours, and work."""

import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, data_utils

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import LANGUAGE_MODEL, Datastore, ShardedDatastore
from tests import cli, lm, toy

DIMENSION, EOS = 16, 2  # of the toy models
BLOCK, CONTEXT = 16, 16
WINDOW = ("--tokens-per-sample", BLOCK + CONTEXT, "--context-window", CONTEXT)


@dataclass(frozen=True)
class Example:
    """A language model and the text of a datastore.

    Args:
        text: of which train is stored.
        model: checkpoint.
    """

    text: lm.Text
    model: Path

    @cached_property
    def lines(self) -> list[np.ndarray]:
        """Tokens of every line of train, with EOS."""
        dictionary = Dictionary.load(str(self.text.data / "dict.txt"))
        dataset = data_utils.load_indexed_dataset(str(self.text.data / "train"), dictionary)
        return [dataset[number].numpy() for number in range(len(dataset))]

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate(self.lines)

    @property
    def documents(self) -> np.ndarray:
        """Number of the document of every token."""
        return self.text.documents("train")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    root = tmp_path_factory.mktemp("lm")
    text = lm.write_text(root / "text", 1)
    return {name: Example(text, lm.train(root / name, text, name)) for name in lm.MODELS}


@pytest.fixture(scope="module")
def example(examples: dict[str, Example]) -> Example:
    return examples["plain"]


@pytest.fixture(scope="module")
def other(example: Example) -> Path:
    """Another model of the same shape."""
    toy.forget_other_trainings()
    return lm.train(example.model.parent.parent / "other", example.text, "plain", "--seed", 4)


def keys_of(model: Path, blocks: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """What the last feed-forward block is given at the tokens of every block (T,) after as many as its context has."""
    (lm,), _ = checkpoint_utils.load_model_ensemble([str(model)])
    states: list[torch.Tensor] = []
    lm.eval().decoder.layers[-1].fc1.register_forward_pre_hook(lambda _, given: states.append(given[0].detach()))
    with torch.no_grad():
        for tokens, _context in blocks:
            lm(torch.from_numpy(tokens).unsqueeze(0))
    # time x batch x dimension
    return torch.cat([state[context:, 0] for state, (_, context) in zip(states, blocks, strict=True)]).numpy()


def write(
    prefix: Path,
    keys: np.ndarray,
    values: np.ndarray,
    key_dtype: type = np.float32,
    value_dtype: type = np.int64,
    room: int = 0,
) -> Path:
    """Write a store as those toolkits do; *room* entries at the end stay empty."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for half, array, dtype in (("keys", keys, key_dtype), ("vals", values[:, None], value_dtype)):
        file = prefix.with_name(f"{prefix.name}_{half}.npy")
        stored = np.memmap(file, dtype, "w+", shape=(len(array) + room, array.shape[1]))
        stored[: len(array)] = array.astype(dtype)
        stored.flush()
    return prefix


def write_with_window(prefix: Path, example: Example) -> Path:
    """As kNN-LM writes with a context window: without the first block and, the store being full, a part of the last."""
    tokens = example.tokens
    inputs = np.concatenate([[EOS], tokens[:-1]])
    starts = range(BLOCK, len(tokens) - BLOCK + 1, BLOCK)
    keys = keys_of(example.model, [(inputs[start - CONTEXT : start + BLOCK], CONTEXT) for start in starts])
    entries = len(keys) - 5
    return write(prefix, keys[:entries], tokens[BLOCK : BLOCK + entries])


@pytest.fixture(scope="module")
def knnlm(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_window(tmp_path_factory.mktemp("knnlm") / "dstore", example)


def convert(old: Path, new: Path, example: Example, *arguments: object, data: Path | None = None) -> int:
    known = ("convert", old, new, data or example.text.data, "--task", "language_modeling_knn", "--path", example.model)
    return main([str(argument) for argument in (*known, "--user-dir", cli.PACKAGE, *arguments)])


def raw(prefix: Path, dtype: type = np.float32) -> np.ndarray:
    return np.fromfile(f"{prefix}_keys.npy", dtype).reshape(-1, DIMENSION)


def assert_converted(store: Datastore, keys: np.ndarray, values: np.ndarray) -> None:
    assert isinstance(store, ShardedDatastore)
    assert (store.plan.kind, store.key, store.entries) == (LANGUAGE_MODEL, "ffn_input", len(values))
    np.testing.assert_array_equal(store.keys(0, store.entries), keys.astype(np.float16))
    np.testing.assert_array_equal(store.values, values)


@pytest.mark.parametrize("name", lm.MODELS)
def test_knnlm_with_a_context_window(
    examples: dict[str, Example], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example, new = examples[name], tmp_path / "new"
    old = write_with_window(tmp_path / "dstore", example)
    assert convert(old, new, example, "--dimension", DIMENSION, "--key-dtype", "float32", *WINDOW) == 0
    printed = capsys.readouterr().out
    store = Datastore.load(new)
    entries, tokens = store.entries, example.tokens
    told = f"the {entries:,} entries are the tokens {BLOCK} to {BLOCK + entries - 1:,} of 'train', which has "
    assert told in printed
    found = re.search(r"(\d+) of the blocks were computed again, and the keys of (\d+) agree", printed)
    assert found is not None
    assert found[1] == found[2]
    assert_converted(store, raw(old), tokens[BLOCK : BLOCK + entries])
    documents = example.documents[BLOCK : BLOCK + entries]
    assert store.continues is not None
    assert store.continues.tolist() == [*(np.diff(documents) == 0), False]
    assert f"blocks of {documents[-1] - documents[0] + 1} documents" in printed
    assert main(["verify", str(new)]) == 0


def test_the_converted_store_serves_the_language_model(knnlm: Path, example: Example, tmp_path: Path) -> None:
    """RetoMaton has its pointers, and the clusters that were made for the old one."""
    assert convert(knnlm, tmp_path, example, "--entries", len(raw(knnlm)), "--dimension", DIMENSION, *WINDOW) == 0
    entries = len(raw(knnlm))
    members = scipy.sparse.csr_matrix((np.ones(entries), (np.arange(entries) // 20, np.arange(entries))))
    (tmp_path / "members.pkl").write_bytes(pickle.dumps(members))
    assert main(["cluster", str(tmp_path), "--members", str(tmp_path / "members.pkl"), "--name", "theirs"]) == 0
    saved = []
    for flags in ((), ("--knn-clusters", "theirs")):
        run = lm.evaluate(
            example.text, example.model, "--knn-datastore-path", tmp_path, "--knn-k", 8, "--knn-retomaton", *flags
        )
        assert run.status == 0, run.log[-2000:]
        found = re.search(r'"knn_foss": ([\d.]+)', run.log + run.output)
        assert found is not None
        saved.append(float(found[1]))
    assert 0 < saved[0] < saved[1]


def test_a_store_that_is_built_here_holds_the_same(knnlm: Path, example: Example, tmp_path: Path) -> None:
    sizes = ("--entries", len(raw(knnlm)), "--dimension", DIMENSION)
    assert convert(knnlm, tmp_path / "converted", example, *sizes, *WINDOW) == 0
    run = lm.build(example.text, example.model, tmp_path / "built", *WINDOW)
    assert run.status == 0, run.log[-2000:]
    converted, built = Datastore.load(tmp_path / "converted"), Datastore.load(tmp_path / "built")
    assert built.entries == len(example.tokens)
    same = slice(BLOCK, BLOCK + converted.entries)
    np.testing.assert_array_equal(converted.values, built.values[same])
    np.testing.assert_allclose(
        converted.keys(0, converted.entries).astype(np.float32), built.keys(same.start, same.stop), atol=0.02
    )
    assert converted.continues is not None
    assert built.continues is not None
    np.testing.assert_array_equal(converted.continues[:-1], built.continues[same][:-1])


def by_length(example: Example) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Sentences in the order of their length, each computed alone, and which they are."""
    order = np.argsort([len(line) for line in example.lines], kind="stable").tolist()
    sentences = [example.lines[number] for number in order]
    keys = keys_of(example.model, [(np.append(EOS, sentence[:-1]), 0) for sentence in sentences])
    return keys, np.concatenate(sentences), order


def test_sentences_in_the_order_of_their_length(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As efficient-knnlm writes them, with sizes in the name."""
    keys, values, order = by_length(example)
    name = f"dstore16_finetuned_size{len(values)}_embed{DIMENSION}_fp16"
    write(tmp_path / "old" / name, keys, values, np.float16)
    assert convert(tmp_path / "old", tmp_path / "new", example, "--sample-break-mode", "eos") == 0
    assert "in the order of their length: pointers go on where the text does" in capsys.readouterr().out
    store = Datastore.load(tmp_path / "new")
    assert_converted(store, keys, values)
    assert store.continues is not None
    ends = np.cumsum([len(example.lines[number]) for number in order]) - 1
    # Two of one length may follow each other in the text.
    document = example.documents[np.cumsum([0, *map(len, example.lines[:-1])])]
    follows = [b == a + 1 and document[a] == document[b] for a, b in pairwise(order)]
    assert any(follows)
    assert np.flatnonzero(~store.continues).tolist() == ends[~np.append(follows, False)].tolist()


def test_int16_values_and_room_at_the_end(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As kNN-LM writes with --dstore-fp16 and a --dstore-size that is too large."""
    keys, values, _ = by_length(example)
    old = write(tmp_path / "old", keys, values, np.float16, np.int16, room=7)
    sizes = ("--dimension", DIMENSION, "--entries", len(values) + 7)
    assert convert(old, tmp_path / "new", example, *sizes, "--sample-break-mode", "eos") == 0
    assert f"7 empty entries at the end of {old} are left out" in capsys.readouterr().out
    assert_converted(Datastore.load(tmp_path / "new"), keys, values)


def test_what_does_not_belong_together_is_refused(
    knnlm: Path, example: Example, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--entries", len(raw(knnlm)), "--dimension", DIMENSION)
    small, other_text = tmp_path / "small", lm.write_text(tmp_path / "text", 2, like=example.text.data).data
    shutil.copytree(example.text.data, small)
    (small / "dict.txt").write_text("".join((small / "dict.txt").read_text().splitlines(True)[:20]))
    values = np.fromfile(f"{knnlm}_vals.npy", np.int64)
    overflown = write(tmp_path / "overflown", raw(knnlm), np.where(values == 7, 40_000, values), value_dtype=np.int16)
    beyond = write(tmp_path / "beyond", raw(knnlm), np.where(values == 7, 99, values))
    half = tmp_path / "half"
    shutil.copy(f"{knnlm}_keys.npy", f"{half}_keys.npy")
    wide = write(tmp_path / "wide", np.tile(raw(knnlm), 2), values)
    for old, arguments, data, complaint in (
        (
            knnlm,
            (*sizes, *WINDOW, "--path", other),
            None,
            "the keys of 0 agree: name the model .* --knn-allow-mismatch",
        ),
        (knnlm, (*sizes, "--tokens-per-sample", 20), None, r"the keys of \d agree: name .*-window as they were when"),
        (knnlm, sizes, None, r"a block has [\d,]+ tokens with its context, but the model takes 32: pass --sample"),
        (knnlm, (*sizes, *WINDOW), other_text, "stored tokens are no run of the .* of 'train'"),
        (knnlm, (*sizes, *WINDOW), small, "checkpoint_last.pt does not fit the dictionaries of the data .*: use the"),
        (beyond, (*sizes, *WINDOW), None, r"holds token 99, but the dictionary of the data has \d+ symbols: name the"),
        (knnlm, (), None, "may hold several things: pass `--entries"),
        (overflown, sizes, None, "negative tokens: kNN-LM's --dstore-fp16 stores tokens as int16"),
        (half, sizes, None, "half_vals.npy is missing beside half_keys.npy"),
        (
            wide,
            ("--dimension", 2 * DIMENSION, "--key-dtype", "float32", *WINDOW),
            None,
            "have dimension 32, the hidden states of the model dimension 16",
        ),
    ):
        assert convert(old, tmp_path / "new", example, *arguments, data=data) == 1, complaint
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(f"^fairseq-knn: error: .*{complaint}", error), error
        assert not (tmp_path / "new").exists()
    assert convert(knnlm, tmp_path / "new", example, *sizes, *WINDOW, "--knn-allow-mismatch", "--path", other) == 0


def test_a_language_models_store_needs_its_task(
    knnlm: Path, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--entries", str(len(raw(knnlm))), "--dimension", str(DIMENSION))
    command = ["convert", str(knnlm), str(tmp_path), str(example.text.data), "--path", str(example.model), *sizes]
    assert main(command) == 1
    assert "is a language model's datastore: pass --task language_modeling_knn" in capsys.readouterr().err
    assert convert(knnlm, knnlm, example, *sizes) == 1
    assert "OLD and NEW are both" in capsys.readouterr().err


def test_an_interrupted_conversion_goes_on(
    knnlm: Path, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: tuple[Any, ...] = ("--entries", len(raw(knnlm)), "--dimension", DIMENSION, *WINDOW)
    arguments += ("--knn-shard-sentences", 4)
    assert convert(knnlm, tmp_path / "whole", example, *arguments) == 0
    with monkeypatch.context() as patch:
        patch.setattr("fairseq_knn.datastore.writer.merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert convert(knnlm, tmp_path / "new", example, *arguments) == 130
    assert convert(knnlm, tmp_path / "new", example, *arguments) == 0
    assert toy.content(tmp_path / "new") == toy.content(tmp_path / "whole")
