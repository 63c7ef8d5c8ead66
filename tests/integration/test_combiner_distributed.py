"""Two processes that train a combiner together do what one does with ``--update-freq 2``."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_knn.retrieval import cache
from tests import toy
from tests.integration.ranks import SHARD_SENTENCES, Planned, together

# Seven batches: at the end of every epoch the second process has none left, and goes through one that does not count.
COMMON = ("--train-subset", "valid", "--max-update", 10, "--report-accuracy")
ADAPTIVE = ("--knn-combiner", "adaptive", "--knn-max-k", 8)
SMOOTHED = ("--knn-combiner", "kernel_smoothed", "--knn-k", 8)
ROBUST = ("--knn-combiner", "robust", "--knn-max-k", 8, "--save-interval-updates", 3)
# Without dropout, whose draws differ.
BASE_MODEL = (
    *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 16, "--dropout", 0),
    *("--decoder-embed-dim", 16, "--encoder-ffn-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--max-update", 6),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--clip-norm", 1.0, "--lr", 0.001),
)
LEGACY, DEFAULT = ("--ddp-backend", "legacy_ddp"), ("--ddp-backend", "pytorch_ddp")
RUNS: dict[str, tuple[tuple[object, ...], tuple[str, ...], bool]] = {  # combiner, ddp, whether there is a cache
    "adaptive": (ADAPTIVE, DEFAULT, False),
    "adaptive.cached": (ADAPTIVE, LEGACY, True),
    "smoothed": (SMOOTHED, LEGACY, False),
    "smoothed.cached": (SMOOTHED, DEFAULT, True),
    "robust.cached": (ROBUST, DEFAULT, True),
}


def checkpoint(directory: Path, name: str = "checkpoint_last.pt") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(directory / name, weights_only=True)
    return content


def figures(log: str) -> list[tuple[str, float]]:
    """Every figure of training and validation that does not depend on the clock."""
    names = "loss|nll_loss|accuracy|knn_hit|knn_lambda|knn_lambda_high|knn_bandwidth|gnorm|num_updates"
    return [(name, float(value)) for name, value in re.findall(rf"\| ({names}) ([-\d.e]+)", log)]


@pytest.fixture(scope="module")
def trained(datastore: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run by two processes, and the last resumed in the middle of an epoch and at the end of one."""
    root = tmp_path_factory.mktemp("together")

    def run(name: str, directory: str, started_from: Path | str = "") -> Planned:
        combiner, ddp, cached = RUNS[name]
        keep = ("--knn-cache", root / "caches" / name) if cached else ()
        arguments = [str(one) for one in (*combiner, *COMMON, *ddp, *keep)]
        return Planned(directory, "combiner", str(root / directory), [str(datastore)], arguments, str(started_from))

    runs = [run(name, name) for name in RUNS]
    for stopped in ("checkpoint_2_6.pt", "checkpoint1.pt"):
        runs.append(run("robust.cached", f"resumed.{stopped}", root / "robust.cached" / stopped))
    runs.append(Planned("base", "base", str(root / "base"), [], [str(one) for one in (*BASE_MODEL, *DEFAULT)]))
    together(root / "plan.json", runs)
    return root


# Not a robust one: two batches one after the other draw other random numbers than two at the same time.
@pytest.mark.parametrize("name", [name for name in RUNS if name != "robust.cached"])
def test_two_processes_equal_one_with_twice_the_batches(
    name: str, trained: Path, datastore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SHARD_SENTENCES", SHARD_SENTENCES)
    combiner, _, cached = RUNS[name]
    keep = ("--knn-cache", tmp_path / "cache") if cached else ()
    alone = toy.train_combiner(tmp_path / "save", datastore, *combiner, *COMMON, *keep, "--update-freq", 2)
    log = (trained / f"{name}.0.log").read_text(encoding="utf-8")
    ours, theirs = figures(log), figures(alone.log)
    assert [figure for figure, _ in ours] == [figure for figure, _ in theirs]
    assert {"knn_hit", "accuracy"} < {figure for figure, _ in ours}
    assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], abs=2e-3)
    assert ("knn_search_ms" in log) == (not cached)
    one, other = checkpoint(trained / name), checkpoint(tmp_path / "save")
    assert one["model"].keys() == other["model"].keys()
    for key, tensor in one["model"].items():
        torch.testing.assert_close(tensor, other["model"][key], rtol=0, atol=1e-5)
    if cached:
        assert toy.content(trained / "caches" / name) == toy.content(tmp_path / "cache")


@pytest.mark.parametrize("stopped", ["checkpoint_2_6.pt", "checkpoint1.pt"])
def test_two_processes_go_on_where_they_were(stopped: str, trained: Path) -> None:
    straight, resumed = checkpoint(trained / "robust.cached"), checkpoint(trained / f"resumed.{stopped}")
    for key, tensor in straight["model"].items():
        assert torch.equal(tensor, resumed["model"][key]), key
    for key, state in straight["last_optimizer_state"]["state"].items():
        assert torch.equal(state["exp_avg_sq"], resumed["last_optimizer_state"]["state"][key]["exp_avg_sq"])


def test_a_base_model_is_trained_by_two_processes(trained: Path, tmp_path: Path) -> None:
    """By stock fairseq-train, with the plug-in loaded."""
    alone = toy.train_base(tmp_path / "save", *BASE_MODEL, "--update-freq", 2)
    assert alone.status == 0, alone.log[-2000:]
    one, other = checkpoint(trained / "base"), checkpoint(tmp_path / "save")
    for each, processes in ((one, 2), (other, 1)):
        assert each["optimizer_history"][-1]["num_updates"] == 6
        assert each["cfg"]["distributed_training"]["distributed_world_size"] == processes
    for key, tensor in one["model"].items():
        torch.testing.assert_close(tensor, other["model"][key], rtol=0, atol=1e-4)


def test_an_option_that_torch_would_stumble_over(datastore: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"--find-unused-parameters .* leave it out"):
        toy.train_combiner(tmp_path, datastore, *ADAPTIVE, *COMMON, "--find-unused-parameters")
