"""Coming from kNN-LM, RetoMaton and efficient-knnlm: stores written as they write them become ours, and work."""

import pickle
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, indexed_dataset

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import LANGUAGE_MODEL, Datastore, ShardedDatastore
from tests import cli, toy

DIMENSION, WORDS, EOS = 32, 40, 2
BLOCK, CONTEXT = 16, 16
TASK = ("--task", "language_modeling_knn")
WINDOW = ("--tokens-per-sample", BLOCK + CONTEXT, "--context-window", CONTEXT)


@dataclass(frozen=True)
class Example:
    """A language model and the text of a datastore.

    Args:
        data: binarised, with the splits train, valid and other.
        model: checkpoint.
        lines: of train, int64 tokens with EOS.
    """

    data: Path
    model: Path
    lines: list[np.ndarray]

    @property
    def tokens(self) -> np.ndarray:
        return np.concatenate(self.lines)


def text(seed: int, lines: int) -> list[np.ndarray]:
    """Lines of random words; every tenth is a title (`` = word = ``)."""
    rng = np.random.default_rng(seed)
    title = 4  # the first symbol of the dictionary, "="
    result = []
    for number in range(lines):
        words = rng.integers(5, 4 + WORDS, rng.integers(1, 14))
        result.append(np.array([title, *words[:3], title, EOS] if number % 10 == 0 else [*words, EOS]))
    return result


def write_split(data: Path, split: str, lines: Iterable[np.ndarray]) -> None:
    builder = indexed_dataset.make_builder(str(data / f"{split}.bin"), impl="mmap", vocab_size=100)
    for line in lines:
        builder.add_item(torch.from_numpy(line))
    builder.finalize(str(data / f"{split}.idx"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    data = tmp_path_factory.mktemp("lm") / "data"
    data.mkdir()
    dictionary = Dictionary()
    for symbol in ("=", *(f"word{number}" for number in range(WORDS - 1))):
        dictionary.add_symbol(symbol)
    dictionary.save(str(data / "dict.txt"))
    lines = text(0, 60)
    for split, content in (("train", lines), ("valid", text(1, 20)), ("other", text(2, 60))):
        write_split(data, split, content)
    return Example(data, train(data, data.parent / "model", seed=3), lines)


@pytest.fixture(scope="module")
def other(example: Example) -> Path:
    """Another model of the same shape."""
    return train(example.data, example.data.parent / "other", seed=4)


def train(data: Path, directory: Path, seed: int) -> Path:
    toy.forget_other_trainings()
    run = cli.call(
        "fairseq-train",
        *(data, "--task", "language_modeling", "--arch", "transformer_lm", "--save-dir", directory),
        *("--decoder-layers", 2, "--decoder-embed-dim", DIMENSION, "--decoder-ffn-embed-dim", 64),
        *("--decoder-attention-heads", 2, "--tokens-per-sample", BLOCK + CONTEXT, "--max-target-positions", 64),
        *("--decoder-input-dim", DIMENSION, "--decoder-output-dim", DIMENSION, "--share-decoder-input-output-embed"),
        *("--optimizer", "adam", "--lr", 0.01, "--batch-size", 8),
        *("--max-update", 20, "--seed", seed, "--num-workers", 0, "--disable-validation", "--no-epoch-checkpoints"),
        *("--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"


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


@pytest.fixture(scope="module")
def knnlm(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As kNN-LM writes with a context window: without the first block and, the store being full, a part of the last."""
    tokens = example.tokens
    inputs = np.concatenate([[EOS], tokens[:-1]])
    starts = range(BLOCK, len(tokens) - BLOCK + 1, BLOCK)
    keys = keys_of(example.model, [(inputs[start - CONTEXT : start + BLOCK], CONTEXT) for start in starts])
    entries = len(keys) - 5
    prefix = tmp_path_factory.mktemp("knnlm") / "dstore"
    return write(prefix, keys[:entries], tokens[BLOCK : BLOCK + entries])


def convert(old: Path, new: Path, example: Example, *arguments: object, model: Path | None = None) -> int:
    known = ("convert", old, new, example.data, *TASK, "--user-dir", cli.PACKAGE, "--path", model or example.model)
    return main([str(argument) for argument in (*known, *arguments)])


def raw(prefix: Path, dtype: type = np.float32) -> np.ndarray:
    return np.fromfile(f"{prefix}_keys.npy", dtype).reshape(-1, DIMENSION)


def assert_converted(store: Datastore, keys: np.ndarray, values: np.ndarray) -> None:
    assert isinstance(store, ShardedDatastore)
    assert (store.plan.kind, store.key, store.entries) == (LANGUAGE_MODEL, "ffn_input", len(values))
    np.testing.assert_array_equal(store.keys(0, store.entries), keys.astype(np.float16))
    np.testing.assert_array_equal(store.values, values)


def titles(example: Example) -> np.ndarray:
    """Number of the document of every token: one begins with every title."""
    lengths = [len(line) for line in example.lines]
    return np.repeat(np.cumsum([line[0] == 4 for line in example.lines]) - 1, lengths)


def test_knnlm_with_a_context_window(
    knnlm: Path, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    assert convert(knnlm, new, example, "--dimension", DIMENSION, "--key-dtype", "float32", *WINDOW) == 0
    printed = capsys.readouterr().out
    store = Datastore.load(new)
    entries, tokens = store.entries, example.tokens
    told = f"the {entries} entries are the tokens {BLOCK} to {BLOCK + entries - 1} of 'train', which has {len(tokens)}"
    assert told in printed
    found = re.search(r"(\d+) of the blocks were computed again, and the keys of (\d+) agree", printed)
    assert found is not None
    assert found[1] == found[2]
    assert_converted(store, raw(knnlm), tokens[BLOCK : BLOCK + entries])
    documents = titles(example)[BLOCK : BLOCK + entries]
    assert store.continues is not None
    assert store.continues.tolist() == [*(np.diff(documents) == 0), False]
    assert f"blocks of {documents[-1] - documents[0] + 1} documents" in printed
    assert main(["verify", str(new)]) == 0


def test_the_converted_store_serves_the_language_model(knnlm: Path, example: Example, tmp_path: Path) -> None:
    """RetoMaton has its pointers, and the clusters that were made for the old one."""
    assert convert(knnlm, tmp_path, example, "--entries", len(raw(knnlm)), "--dimension", DIMENSION, *WINDOW) == 0
    evaluate = (
        *(example.data, *TASK, "--path", example.model, "--gen-subset", "valid", "--num-workers", 0),
        *("--knn-datastore-path", tmp_path, "--knn-k", 8, *WINDOW, "--user-dir", cli.PACKAGE, "--cpu"),
    )
    entries = len(raw(knnlm))
    members = scipy.sparse.csr_matrix((np.ones(entries), (np.arange(entries) // 20, np.arange(entries))))
    (tmp_path / "members.pkl").write_bytes(pickle.dumps(members))
    assert main(["cluster", str(tmp_path), "--members", str(tmp_path / "members.pkl"), "--name", "theirs"]) == 0
    saved = []
    for flags in ((), ("--knn-clusters", "theirs")):
        run = cli.call("fairseq-eval-lm", *evaluate, "--knn-retomaton", *flags)
        assert run.status == 0, run.log[-2000:]
        found = re.search(r'"knn_foss": ([\d.]+)', run.log + run.output)
        assert found is not None
        saved.append(float(found[1]))
    assert 0 < saved[0] < saved[1]


def test_a_store_that_is_built_here_holds_the_same(knnlm: Path, example: Example, tmp_path: Path) -> None:
    sizes = ("--entries", len(raw(knnlm)), "--dimension", DIMENSION)
    assert convert(knnlm, tmp_path / "converted", example, *sizes, *WINDOW) == 0
    run = cli.call(
        "fairseq-eval-lm",
        *(example.data, *TASK, "--path", example.model, "--gen-subset", "train", "--num-workers", 0, *WINDOW),
        *(
            "--knn-mode",
            "build_datastore",
            "--knn-datastore-path",
            tmp_path / "built",
            "--user-dir",
            cli.PACKAGE,
            "--cpu",
        ),
    )
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
    follows = [b == a + 1 and b % 10 != 0 for a, b in pairwise(order)]
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
    small = tmp_path / "small"
    shutil.copytree(example.data, small)
    (small / "dict.txt").write_text("".join((example.data / "dict.txt").read_text().splitlines(True)[:20]))
    values = np.fromfile(f"{knnlm}_vals.npy", np.int64)
    overflown = write(tmp_path / "overflown", raw(knnlm), np.where(values == 7, 40_000, values), value_dtype=np.int16)
    beyond = write(tmp_path / "beyond", raw(knnlm), np.where(values == 7, 99, values))
    half = tmp_path / "half"
    shutil.copy(f"{knnlm}_keys.npy", f"{half}_keys.npy")
    wide = write(tmp_path / "wide", np.tile(raw(knnlm), 2), values)
    for old, arguments, model, complaint in (
        (knnlm, (*sizes, *WINDOW), other, "and the keys of 0 agree: name the model .* --knn-allow-mismatch"),
        (knnlm, (*sizes, "--tokens-per-sample", 20), None, r"the keys of \d agree: name .*-window as they were when"),
        (knnlm, sizes, None, r"a block has \d+ tokens with its context, but the model takes 64: pass --sample-break"),
        (knnlm, (*sizes, *WINDOW, "--gen-subset", "other"), None, "stored tokens are no run of the .* of 'other'"),
        (
            knnlm,
            (*sizes, *WINDOW, "--data", small),
            None,
            "model/checkpoint_last.pt does not fit the dictionaries of the data .*: use the",
        ),
        (beyond, (*sizes, *WINDOW), None, "holds token 99, but the dictionary of the data has 44 symbols: name the"),
        (knnlm, (), None, "may hold several things: pass `--entries"),
        (overflown, sizes, None, "negative tokens: kNN-LM's --dstore-fp16 stores tokens as int16"),
        (half, sizes, None, "half_vals.npy is missing beside half_keys.npy"),
        (
            wide,
            ("--dimension", 2 * DIMENSION, "--key-dtype", "float32", *WINDOW),
            None,
            "have dimension 64, the hidden states of the model dimension 32",
        ),
    ):
        data = small if "--data" in arguments else example.data
        given = [argument for argument in arguments if argument not in ("--data", small)]
        where = Example(data, example.model, example.lines)
        assert convert(old, tmp_path / "new", where, *given, model=model) == 1, complaint
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(f"^fairseq-knn: error: .*{complaint}", error), error
        assert not (tmp_path / "new").exists()
    assert convert(knnlm, tmp_path / "new", example, *sizes, *WINDOW, "--knn-allow-mismatch", model=other) == 0


def test_a_language_models_store_needs_its_task(
    knnlm: Path, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--entries", str(len(raw(knnlm))), "--dimension", str(DIMENSION))
    command = ["convert", str(knnlm), str(tmp_path), str(example.data), "--path", str(example.model), *sizes]
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
