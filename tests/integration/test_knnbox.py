"""Coming from knn-box and adaptive-knn-mt: their datastores, indexes and checkpoints, and what they translated."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError
from tests import cli, toy

KNNBOX = toy.TOY / "knnbox_datastore"
SETTINGS = ("--lenpen", 0.6, "--max-len-a", 1.2, "--max-len-b", 10, "--max-tokens", 2048)  # beside beam 4, k 8, ...


def knnbox_printed(system: str) -> cli.Run:
    """What knn-box's own program wrote for the test split."""
    return cli.Run(0, (toy.TOY / f"expected.{system}.txt").read_text(encoding="utf-8"), "")


def assert_translates_like_knnbox(run: cli.Run) -> None:
    assert run.status == 0, run.log[-2000:]
    ours, theirs = run.hypotheses(), knnbox_printed("vanilla").hypotheses()
    assert len(theirs) == len(ours) == toy.TEST_SENTENCES
    same = [number for number in theirs if ours[number].text == theirs[number].text]
    assert len(same) >= 0.97 * toy.TEST_SENTENCES
    assert run.bleu == pytest.approx(knnbox_printed("vanilla").bleu, abs=0.5)
    for number in same:
        assert ours[number].score == pytest.approx(theirs[number].score, abs=1e-3)
        np.testing.assert_allclose(ours[number].positional, theirs[number].positional, atol=2e-3)


@pytest.fixture(scope="module")
def as_it_is() -> cli.Run:
    return toy.translate(KNNBOX, *SETTINGS)


def test_its_datastore_and_index_are_used_as_they_are(as_it_is: cli.Run) -> None:
    before = toy.content(KNNBOX)
    assert_translates_like_knnbox(as_it_is)
    assert "searching" in as_it_is.log
    assert "keys.faiss_index" in as_it_is.log
    assert "does not say which model and dictionary built it" in as_it_is.log
    assert toy.content(KNNBOX) == before


def test_the_base_alone_translates_as_in_knnbox() -> None:
    run = toy.translate(KNNBOX, *SETTINGS, "--knn-lambda", 0)
    theirs = knnbox_printed("base")
    assert run.bleu == pytest.approx(theirs.bleu, abs=0.1)
    toy.assert_scores_close(run, theirs, tolerance=1e-3, same=0.99)


FORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "knn-box": (
        "vanilla_knn_mt@transformer",
        {"knn_mode": "build_datastore", "knn_datastore_path": "/gone", "knn_k": 3, "knn_lambda": 0.1},
    ),
    "adaptive-knn-mt": (
        "transformer_with_datastore",
        {
            **{"use_knn_datastore": True, "dstore_filename": "/gone", "dstore_size": 5, "dstore_fp16": True, "k": 3},
            **{"knn_lambda_type": "fix", "knn_lambda_value": 0.1, "knn_temperature_type": "fix", "probe": 1},
        },
    ),
}


def test_names_and_parameters_that_only_forks_have(as_it_is: cli.Run, tmp_path: Path) -> None:
    checkpoint = torch.load(toy.ARGS_STYLE, weights_only=False)
    checkpoint["args"].criterion = "label_smoothed_cross_entropy_for_robust"
    checkpoint["args"].optimizer, checkpoint["args"].task = "their_adam", "translation_with_datastore"
    checkpoint["model"]["decoder.combiner.meta_k_network.weight"] = torch.zeros(3)
    torch.save(checkpoint, tmp_path / "fork.pt")
    run = toy.translate(KNNBOX, *SETTINGS, model=tmp_path / "fork.pt")
    assert run.lines() == as_it_is.lines()
    assert "1 parameters of a combiner are left out" in run.log
    checkpoint["args"].arch = "their_transformer"
    torch.save(checkpoint, tmp_path / "other.pt")
    with pytest.raises(ConfigurationError, match="has the architecture their_transformer, which is not registered"):
        toy.translate(KNNBOX, model=tmp_path / "other.pt")


def test_an_interrupted_conversion_of_something_else_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(KNNBOX, old)
    keys = np.memmap(old / "keys.npy", np.float16, "r+")
    keys *= np.float16(1.01)
    keys.flush()
    small = ("--knn-shard-sentences", 300)
    with monkeypatch.context() as patch:
        patch.setattr("fairseq_knn.datastore.writer.merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert convert(KNNBOX, new, *small) == 130
    assert convert(old, new, *small) == 1
    assert "holds an unfinished datastore of another plan" in capsys.readouterr().err
    assert convert(KNNBOX, new, *small) == 0


@pytest.mark.parametrize("fork", FORKS)
def test_checkpoints_with_arguments_that_only_forks_know(fork: str, as_it_is: cli.Run, tmp_path: Path) -> None:
    architecture, arguments = FORKS[fork]
    checkpoint = torch.load(toy.ARGS_STYLE, weights_only=False)
    checkpoint["args"].arch = architecture
    for name, value in arguments.items():
        setattr(checkpoint["args"], name, value)
    torch.save(checkpoint, tmp_path / "fork.pt")
    run = toy.translate(KNNBOX, *SETTINGS, model=tmp_path / "fork.pt")
    assert run.lines() == as_it_is.lines()


def convert(old: Path, new: Path, *arguments: object, data: Path = toy.DOMAIN, model: Path = toy.BASE) -> int:
    known = ("convert", old, new, data, "--user-dir", cli.PACKAGE, "--path", model)
    return main([str(argument) for argument in (*known, *arguments)])


def test_converted_it_is_ours(tmp_path: Path, as_it_is: cli.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(KNNBOX, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "of 64 sentences of 'train' computed again, 64 are stored" in printed
    assert "the keys of 64 agree" in printed
    store = Datastore.load(tmp_path)
    assert (store.entries, store.plan is not None) == (15997, True)
    run = toy.translate(tmp_path, *SETTINGS)
    # Searched exactly now, where knn-box's index quantises.
    exact = toy.translate(KNNBOX, *SETTINGS, "--knn-backend", "torch")
    toy.assert_scores_close(run, exact, same=0.99)
    assert run.bleu == pytest.approx(as_it_is.bleu, abs=0.5)
    assert "does not say" not in run.log


def test_adaptive_knn_mt_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No description, and room for more entries than there are."""
    old = tmp_path / "old"
    old.mkdir()
    for name, width in (("keys", 128), ("vals", 8)):
        (old / f"{name}.npy").write_bytes((KNNBOX / f"{name}.npy").read_bytes() + bytes(10 * width))
    assert convert(old, tmp_path / "new") == 1
    assert "--dimension D" in capsys.readouterr().err
    assert convert(old, tmp_path / "new", "--dimension", 64) == 0
    assert "10 empty entries at the end" in capsys.readouterr().out
    assert Datastore.load(tmp_path / "new").entries == 15997


def test_what_another_model_or_corpus_built_is_not_converted(
    tmp_path: Path, other_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, data, model, complaint in (
        ((), toy.DOMAIN, other_model, "64 are stored in .*, and the keys of 0 agree: name the model"),
        ((), toy.GENERAL, toy.BASE, "0 are stored in .*, and the keys of 0 agree"),
        (("--path", ""), toy.DOMAIN, toy.BASE, "--path is missing"),
        (("--dimension", 0), toy.DOMAIN, toy.BASE, "--dimension is 0"),
    ):
        assert convert(KNNBOX, tmp_path / "new", *arguments, data=data, model=model) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(f"^fairseq-knn: error: .*{complaint}", error), error
        assert not (tmp_path / "new").exists()
    assert convert(KNNBOX, tmp_path / "new", "--knn-allow-mismatch", model=other_model) == 0
    assert convert(toy.TOY, tmp_path / "other") == 1
    assert "has neither keys.npy and vals.npy, as knn-box and adaptive-knn-mt" in capsys.readouterr().err


def test_our_index_in_its_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(KNNBOX, tmp_path / "store")
    assert main(["build-index", str(tmp_path / "store"), "--knn-index", "flat"]) == 0
    assert "recall@8" in capsys.readouterr().out
    run = toy.translate(tmp_path / "store", *SETTINGS, "--knn-backend", "faiss")
    assert run.bleu == pytest.approx(knnbox_printed("vanilla").bleu, abs=0.7)
    assert "keys.faiss_index" not in run.log
    assert main(["build-index", str(tmp_path / "store"), "--knn-index", "flat", "--drop-keys"]) == 1
    assert "whose files are left alone: make one of this package of it" in capsys.readouterr().err


def test_its_datastore_with_data_of_another_dictionary(tmp_path: Path) -> None:
    """Values beyond the dictionary are all that can be noticed."""
    shutil.copytree(KNNBOX, tmp_path / "store")
    values = np.memmap(tmp_path / "store" / "vals.npy", np.int64, "r+")
    values[7] = 4711
    values.flush()
    run = cli.run(
        "fairseq-generate",
        *(*toy.base_arguments(), "--gen-subset", "test", "--knn-datastore-path", tmp_path / "store"),
        *("--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert run.status == 1
    (error,) = run.errors
    assert "holds token 4711, but the target dictionary of the data has 168 symbols" in error
