"""Combiners trained by stock fairseq-train, from a base model and a datastore to a translation."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn.combiners.loading import load_combiner
from fairseq_knn.errors import UserError
from fairseq_knn.tasks.knn.combiner_training import BEST
from tests import cli, toy

SETTINGS = {
    "adaptive": ("--knn-combiner", "adaptive", "--knn-max-k", 8),
    "separate": ("--knn-combiner", "adaptive", "--knn-max-k", 8, "--knn-adaptive-form", "separate"),
    "kernel_smoothed": ("--knn-combiner", "kernel_smoothed", "--knn-k", 8),
    "robust": ("--knn-combiner", "robust", "--knn-max-k", 8),
}
ON_VALID = ("--train-subset", "valid", "--valid-subset", "valid")


def figure(run: cli.Run, name: str) -> list[float]:
    """All values of a figure in the log lines of validation."""
    return [float(value) for value in re.findall(rf"valid on .*? {name} ([-\d.e]+)", run.log)]


def checkpoint(directory: Path, name: str = "checkpoint_last.pt") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(directory / name, weights_only=True)
    return content


@pytest.fixture(scope="module")
def trained(datastore: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, cli.Run]]:
    """One combiner of every kind: adaptive and robust on the validation data, KSTER on the training data."""
    runs = {}
    for name, settings in SETTINGS.items():
        directory = tmp_path_factory.mktemp(name)
        subsets = () if name == "kernel_smoothed" else ON_VALID
        options = ("--max-update", 60, "--validate-interval-updates", 20, "--knn-cache", directory)
        run = toy.train_combiner(directory, datastore, *settings, *subsets, *options)
        assert run.status == 0, run.log[-2000:]
        runs[name] = directory, run
    return runs


@pytest.mark.parametrize("name", SETTINGS)
def test_training_lowers_the_loss_and_the_checkpoint_translates(
    name: str, trained: dict[str, tuple[Path, cli.Run]], datastore: Path
) -> None:
    directory, run = trained[name]
    losses = figure(run, "nll_loss")
    assert losses[-1] < losses[0]
    assert 0 < figure(run, "knn_lambda")[-1] < 1
    assert figure(run, "knn_hit")[-1] > 0.5
    assert len(figure(run, "knn_lambda_high")) == len(losses)
    assert bool(figure(run, "knn_bandwidth")) == (name == "kernel_smoothed")
    alone = toy.generate_with(directory / "checkpoint_best.pt")
    assert alone.bleu > 65  # the base: 36.2
    from_directory = toy.translate(datastore, "--knn-combiner-path", directory / "combiner_best")
    toy.assert_scores_close(alone, from_directory)
    figures = json.loads(alone.closing_line.partition(" | ")[2])
    assert 0 < figures["knn_lambda"] < 1
    assert "knn_search_ms" in figures


@pytest.mark.parametrize("name", SETTINGS)
def test_checkpoints_hold_the_combiner_and_what_finds_the_base(
    name: str, trained: dict[str, tuple[Path, cli.Run]], datastore: Path
) -> None:
    directory, _ = trained[name]
    content = checkpoint(directory)
    assert set(content["model"]) == {
        f"combiner.{key}" for key in load_combiner(directory / "combiner_best").state_dict()
    }
    reference = content["task_state"]["knn"]
    assert reference["base"]["path"] == str(toy.BASE)
    assert reference["settings"]["knn_datastore_path"] == str(datastore)
    assert all(tensor.dtype == torch.float32 for tensor in content["model"].values())


def test_the_cache_changes_nothing_but_the_time(datastore: Path, tmp_path: Path) -> None:
    """The same updates with base model and search in every one, and from what they gave once."""
    for name in ("adaptive", "kernel_smoothed"):
        settings = (*SETTINGS[name], "--max-update", 12, "--report-accuracy", "--label-smoothing", 0.1)
        plain, cached = tmp_path / f"{name}.plain", tmp_path / f"{name}.cached"
        first = toy.train_combiner(plain, datastore, *settings)
        second = toy.train_combiner(cached, datastore, *settings, "--knn-cache", tmp_path / name)
        for what in ("loss", "nll_loss", "accuracy", "knn_lambda", "knn_hit"):
            assert figure(second, what) == pytest.approx(figure(first, what), rel=2e-3, abs=2e-3), what
        one, other = checkpoint(plain)["model"], checkpoint(cached)["model"]
        for key in one:
            torch.testing.assert_close(other[key], one[key], rtol=0, atol=5e-3)


def test_no_entry_is_its_own_neighbour(datastore: Path, tmp_path: Path) -> None:
    """With its own entry among the neighbours every gold token would be found, at a distance of 0."""
    run = toy.train_combiner(tmp_path, datastore, *SETTINGS["kernel_smoothed"], "--max-update", 2)
    assert "no entry will be its own neighbour" in run.log
    hits = [float(hit) for hit in re.findall(r"^epoch \d+ \| loss .*? knn_hit ([\d.]+)", run.log, re.MULTILINE)]
    assert 0.5 < hits[-1] < 0.99


SCHEDULES = {
    "inverse_sqrt": ("--lr-scheduler", "inverse_sqrt", "--warmup-updates", 4),
    "plateau": ("--lr-scheduler", "reduce_lr_on_plateau", "--lr-patience", 0, "--lr-shrink", 0.5, "--patience", 30),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resuming_equals_not_stopping(schedule: str, datastore: Path, tmp_path: Path) -> None:
    """From a checkpoint in the middle of an epoch and from one at its end; an epoch has seven updates."""
    settings = (
        *SETTINGS["robust"],
        *SCHEDULES[schedule],
        *("--knn-cache", tmp_path / "cache", "--train-subset", "valid", "--lr", 0.05, "--max-update", 24),
        *("--save-interval-updates", 5),
    )
    straight = tmp_path / "straight"
    toy.train_combiner(straight, datastore, *settings, epoch_checkpoints=True)
    one = checkpoint(straight)
    for stopped in ("checkpoint_1_5.pt", "checkpoint2.pt"):
        resumed = tmp_path / stopped
        resumed.mkdir()
        shutil.copy(straight / stopped, resumed / "checkpoint_last.pt")
        toy.train_combiner(resumed, datastore, *settings, epoch_checkpoints=True)
        other = checkpoint(resumed)
        for what in ("num_updates", "lr_scheduler_state"):
            assert one["optimizer_history"][-1][what] == other["optimizer_history"][-1][what]
        for key in one["model"]:
            assert torch.equal(one["model"][key], other["model"][key]), key
        for key, state in one["last_optimizer_state"]["state"].items():
            assert torch.equal(state["exp_avg_sq"], other["last_optimizer_state"]["state"][key]["exp_avg_sq"])
        for what in ("best", "val_loss", "TranslationKnnTask"):
            assert one["extra_state"][what] == other["extra_state"][what]


def test_stock_options_of_checkpoints(datastore: Path, tmp_path: Path) -> None:
    toy.train_combiner(
        tmp_path,
        datastore,
        *SETTINGS["adaptive"],
        *("--train-subset", "valid", "--max-update", 21, "--no-last-checkpoints", "--no-save-optimizer-state"),
        *("--save-interval-updates", 3, "--keep-interval-updates", 2, "--keep-best-checkpoints", 1, "--update-freq", 2),
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert "checkpoint_last.pt" not in names
    assert sum(name.startswith("checkpoint.best_loss_") for name in names) == 1
    assert "last_optimizer_state" not in checkpoint(tmp_path, "checkpoint_best.pt")
    assert toy.generate_with(tmp_path / "checkpoint_best.pt").bleu > 60


def test_the_command_of_the_kster_tutorial(datastore: Path, tmp_path: Path) -> None:
    """Its flags as they are, but for the task, the architecture of the toy base, and fewer and smaller updates."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    toy.forget_other_trainings()
    _forget_event_files()
    save = tmp_path / "save"
    done = cli.call(
        "fairseq-train",
        *(toy.DOMAIN, "--task", "translation_knn", "--arch", toy.ARCHITECTURE, "--user-dir", cli.PACKAGE, "--cpu"),
        *("--knn-mode", "train", "--knn-datastore-path", datastore),
        *("--knn-combiner", "kernel_smoothed", "--knn-k", 32, "--knn-cache", tmp_path / "cache"),
        *("--train-subset", "train", "--valid-subset", "valid"),
        *("--best-checkpoint-metric", "loss", "--patience", 30, "--max-epoch", 500, "--max-update", 4),
        *("--finetune-from-model", toy.BASE),
        *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", 1.0),
        *("--lr", 2e-4, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 200),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.001),
        *("--save-interval-updates", 2),
        *("--no-epoch-checkpoints", "--no-last-checkpoints", "--no-save-optimizer-state"),
        *("--tensorboard-logdir", save / "log", "--save-dir", save),
        *("--max-tokens", 256, "--update-freq", 36, "--num-workers", 0, "--log-interval", 1),
    )
    assert done.status == 0, done.log[-2000:]
    assert {path.name for path in save.glob("*.pt")} == {"checkpoint_1_2.pt", "checkpoint_best.pt", "checkpoint_2_4.pt"}
    assert '"knn_k": 32' in toy.generate_with(save / "checkpoint_best.pt").closing_line
    for split in ("valid", "train_inner"):
        events = EventAccumulator(str(save / "log" / split)).Reload()
        assert [event.step for event in events.Scalars("knn_lambda")][-1] == 4, split
        assert all(0 < event.value < 1 for event in events.Scalars("knn_lambda")), split
    _forget_event_files()


def _forget_event_files() -> None:
    """fairseq keeps them open for the rest of the process."""
    from fairseq.logging import progress_bar

    for writer in (progress_bar._tensorboard_writers or {}).values():
        writer.close()
    progress_bar._tensorboard_writers = {}


def test_a_moved_base_and_a_changed_one(
    trained: dict[str, tuple[Path, cli.Run]], other_model: Path, datastore: Path, tmp_path: Path
) -> None:
    content = checkpoint(trained["adaptive"][0], "checkpoint_best.pt")
    gone = tmp_path / "gone.pt"
    content["task_state"]["knn"]["base"]["path"] = str(gone)
    path = tmp_path / "moved.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"the base model .*gone.pt does not exist: .* --knn-base-path"):
        toy.generate_with(path)
    assert toy.generate_with(path, "--knn-base-path", toy.BASE).bleu > 65
    with pytest.raises(UserError, match=r"is another model \(.*\) than the one the combiner was trained with"):
        toy.generate_with(path, "--knn-base-path", other_model, "--knn-allow-mismatch")


def test_the_command_line_wins_over_what_is_recorded(
    trained: dict[str, tuple[Path, cli.Run]], small_datastore: Path
) -> None:
    path = trained["kernel_smoothed"][0] / "checkpoint_best.pt"
    run = toy.generate_with(path, "--knn-datastore-path", small_datastore, "--knn-k", 3)
    assert f"using {small_datastore}" in run.log
    assert '"knn_k": 3' in run.closing_line
    # The kind that the checkpoint recorded is not asked for by anybody.
    other = toy.generate_with(path, "--knn-combiner-path", trained["adaptive"][0] / "combiner_best")
    assert other.texts() == toy.generate_with(trained["adaptive"][0] / "checkpoint_best.pt").texts()


def test_relative_paths_are_found_from_everywhere(
    datastore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq-validate and the hub make the task of the settings that a checkpoint holds."""
    shutil.copytree(datastore, tmp_path / "store")
    shutil.copy(toy.BASE, tmp_path / "base.pt")
    monkeypatch.chdir(tmp_path)
    run = toy.train_combiner(
        Path("save"),
        "store",
        *(*SETTINGS["adaptive"], *ON_VALID, "--max-update", 2, "--knn-base-path", "base.pt"),
        finetune=False,
    )
    assert run.status == 0, run.log[-2000:]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = cli.call(
        "fairseq-validate",
        *(toy.DOMAIN, "--path", tmp_path / "save" / "checkpoint_best.pt", "--user-dir", cli.PACKAGE, "--cpu"),
        *("--task", "translation_knn", "--max-tokens", 2048, "--num-workers", 0),
    )
    assert done.status == 0, done.log[-2000:]
    assert f"using {tmp_path / 'store'}" in done.output


def test_another_name_of_the_architecture(datastore: Path, tmp_path: Path) -> None:
    """The published WMT19 models are a transformer_wmt_en_de_big; tutorials name transformer_wmt19_de_en."""
    settings = (*SETTINGS["adaptive"], *ON_VALID, "--arch", "transformer_wmt19_de_en", "--max-update", 2)
    assert toy.train_combiner(tmp_path, datastore, *settings).status == 0
    assert checkpoint(tmp_path)["task_state"]["knn"]["base"]["architecture"] == toy.ARCHITECTURE
    assert toy.generate_with(tmp_path / "checkpoint_best.pt").bleu > 36


def test_an_ensemble_of_combiners(trained: dict[str, tuple[Path, cli.Run]]) -> None:
    names = [trained[name][0] / "checkpoint_best.pt" for name in ("adaptive", "kernel_smoothed")]
    run = toy.generate_with(":".join(map(str, names)))
    assert run.bleu > 65


def test_the_hub_loads_a_combiner(trained: dict[str, tuple[Path, cli.Run]]) -> None:
    from fairseq.models.transformer import TransformerModel

    directory = trained["kernel_smoothed"][0]
    hub = TransformerModel.from_pretrained(str(directory), "checkpoint_best.pt", str(toy.DOMAIN))
    sources = (toy.TOY / "domain.test.de").read_text(encoding="utf-8").splitlines()[:20]
    expected = toy.generate_with(directory / "checkpoint_best.pt", "--beam", 5).texts("D")
    assert hub.translate(sources) == [expected[i] for i in range(20)]


def test_validate_scores_with_the_combiner(trained: dict[str, tuple[Path, cli.Run]]) -> None:
    directory, _ = trained["robust"]
    done = cli.call(
        "fairseq-validate",
        *(toy.DOMAIN, "--path", directory / "checkpoint_best.pt", "--user-dir", cli.PACKAGE, "--cpu"),
        *("--task", "translation_knn", "--max-tokens", 2048, "--num-workers", 0, "--log-format", "json"),
    )
    found = re.findall(r'{.*"valid_loss": .*}', done.output)
    assert len(found) == 1, done.log[-2000:]
    expected = checkpoint(directory, "checkpoint_best.pt")["extra_state"]["val_loss"]
    assert float(json.loads(found[0])["valid_loss"]) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--knn-combiner", "vanilla"), "has nothing to train"),
        (("--arch", "transformer_align"), r"--arch is transformer_align, but the base model .* is a transformer: "),
        (("--finetune-from-model", "nowhere.pt"), "the base model nowhere.pt does not exist"),
        (("--knn-datastore-path", ""), "--knn-datastore-path is missing"),
        (("--store-ema",), "--store-ema averages all parameters"),
        (("--criterion", "label_smoothed_cross_entropy_with_alignment", "--knn-cache", "x"), "leave --knn-cache out"),
        (("--knn-combiner-path", "x"), "but --knn-mode train makes a new one"),
        (("--train-subset", "train,valid"), r"Dataset not found: train,valid .* --train-subset \(one split\)"),
        (("--valid-subset", "nowhere"), r"Dataset not found: nowhere .* and --valid-subset"),
        (("--knn-max-k", 6), "power of two"),
        (("--knn-max-k", 2**20), "choose k between 1 and"),
    ],
)
def test_what_cannot_be_trained(
    arguments: tuple[object, ...], told: str, datastore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=told):
        toy.train_combiner(tmp_path / "save", datastore, *SETTINGS["adaptive"], *ON_VALID, *arguments)


@pytest.mark.parametrize("cached", [False, True])
def test_distances_that_are_no_numbers(cached: bool, datastore: Path, tmp_path: Path) -> None:
    store = shutil.copytree(toy.TOY / "knnbox_datastore", tmp_path / "store")
    (store / "keys.faiss_index").unlink(missing_ok=True)
    keys = np.memmap(store / "keys.npy", np.float16, mode="r+")
    keys[:] = np.nan
    keys.flush()
    arguments = ("--knn-cache", tmp_path / "cache") if cached else ()
    with pytest.raises(UserError, match=r"no neighbour was found for a whole batch, .*`fairseq-knn verify`"):
        toy.train_combiner(tmp_path / "save", store, *SETTINGS["adaptive"], *ON_VALID, *arguments)
    # Nor does the base model translate in the place of both.
    for combiner in ((), ("--knn-combiner-path", toy.TOY / "knnbox_adaptive")):
        with pytest.raises(UserError, match=r"no neighbour was found for a whole batch, .*`fairseq-knn verify`"):
            toy.translate(store, *combiner)


def test_foreign_caches_and_checkpoints(
    datastore: Path, small_datastore: Path, trained: dict[str, tuple[Path, cli.Run]], tmp_path: Path
) -> None:
    directory = trained["adaptive"][0]
    with pytest.raises(UserError, match=r"is the cache of another retrieval \(datastores "):
        toy.train_combiner(tmp_path / "a", small_datastore, *SETTINGS["adaptive"], *ON_VALID, "--knn-cache", directory)
    with pytest.raises(UserError, match=r"is the cache of another retrieval \(k 8, this run has 4\)"):
        toy.train_combiner(
            tmp_path / "b", datastore, "--knn-combiner", "adaptive", "--knn-k", 4, *ON_VALID, "--knn-cache", directory
        )
    copy = shutil.copytree(directory, tmp_path / "copy")
    with pytest.raises(Exception, match=r".*") as failure:
        toy.train_combiner(copy, datastore, *SETTINGS["kernel_smoothed"], *ON_VALID)
    from fairseq_knn.hooks import _user_error

    assert "another kind or size" in str(_user_error(failure.value))
    with pytest.raises(UserError, match="is the checkpoint of a combiner, not of a model"):
        toy.train_combiner(
            tmp_path / "c",
            datastore,
            *SETTINGS["adaptive"],
            *("--finetune-from-model", directory / "checkpoint_best.pt"),
        )
    with pytest.raises(UserError, match="datastores are built by models"):
        toy.build(tmp_path / "d", model=directory / "checkpoint_best.pt")
    with pytest.raises(UserError, match="of the kind adaptive, but --knn-combiner asks for robust"):
        toy.generate_with(directory / "checkpoint_best.pt", "--knn-combiner", "robust")
    for arguments in ((directory / "checkpoint_best.pt",), (toy.BASE, "--knn-combiner-path", directory / BEST)):
        with pytest.raises(
            UserError, match=r"of the kind adaptive, but --knn-combiner asks for vanilla: .* base model"
        ):
            toy.generate_with(*arguments, "--knn-datastore-path", datastore, "--knn-combiner", "vanilla")
    with pytest.raises(UserError, match="was trained with 8 neighbours, but 4 are asked for"):
        toy.generate_with(directory / "checkpoint_best.pt", "--knn-k", 4)


def test_starting_from_another_checkpoint(
    trained: dict[str, tuple[Path, cli.Run]], datastore: Path, tmp_path: Path
) -> None:
    """fairseq takes neither ``--restore-file`` nor ``--reset-optimizer`` beside ``--finetune-from-model``."""
    directory = trained["adaptive"][0]
    options = (*SETTINGS["adaptive"], *ON_VALID, "--knn-cache", directory, "--max-update", 62)
    for other in (("--restore-file", directory / "checkpoint_last.pt"), ("--reset-optimizer",)):
        with pytest.raises(UserError, match=rf"no {other[0]} beside .* --knn-base-path instead"):
            toy.train_combiner(tmp_path / "save", datastore, *options, *other)
        run = toy.train_combiner(
            tmp_path / f"save{other[0]}",
            datastore,
            *(*options, *other, "--knn-base-path", toy.BASE),
            finetune=False,
        )
        assert run.status == 0, run.log[-2000:]
        assert checkpoint(tmp_path / f"save{other[0]}")["model"].keys() == checkpoint(directory)["model"].keys()


def test_what_is_reset_does_not_go_on(datastore: Path, tmp_path: Path) -> None:
    """A training that starts from another's checkpoint has a best loss, patience, schedule and epochs of its own."""
    options = ("--knn-cache", tmp_path / "cache", "--max-update", 100)
    settings = (*SETTINGS["adaptive"], *ON_VALID, *SCHEDULES["plateau"], *options)
    # Losses that nothing can be better than, and a schedule that has waited.
    toy.train_combiner(tmp_path / "one", datastore, *settings, "--max-epoch", 2)
    content = checkpoint(tmp_path / "one")
    state = content["extra_state"]
    state["val_loss"] = state["best"] = 0.0
    state["TranslationKnnTask"].update(stopping={"best": 0.0, "num_runs": 29}, plateau={"num_bad_epochs": 9})
    torch.save(content, tmp_path / "one.pt")

    def resumed(name: str, *resets: str) -> dict[str, Any]:
        start = ("--knn-base-path", toy.BASE, "--restore-file", tmp_path / "one.pt", "--max-epoch", 4)
        toy.train_combiner(tmp_path / name, datastore, *settings, *start, *resets, finetune=False)
        return checkpoint(tmp_path / name)

    on = resumed("on")
    assert on["extra_state"]["TranslationKnnTask"]["stopping"] == {"best": 0.0, "num_runs": 30}
    assert on["extra_state"]["train_iterator"]["epoch"] == 4  # stopped after one
    assert on["optimizer_history"][-1]["lr_scheduler_state"]["best"] == 0.0
    resets = ("--reset-optimizer", "--reset-lr-scheduler", "--reset-meters", "--reset-dataloader")
    anew = resumed("anew", *resets)
    assert anew["extra_state"]["TranslationKnnTask"]["stopping"]["best"] > 0
    assert anew["extra_state"]["train_iterator"]["epoch"] == 5
    assert anew["optimizer_history"][-1]["lr_scheduler_state"]["best"] > 0


def test_other_trainings_leave_the_checkpoints_of_stock(tmp_path: Path) -> None:
    def trained(task: str) -> dict[str, Any]:
        path = toy.train(
            tmp_path / task,
            *("--task", task, "--arch", "transformer", "--max-update", 2, "--encoder-layers", 1, "--decoder-layers", 1),
            *("--encoder-embed-dim", 16, "--decoder-embed-dim", 16, "--encoder-attention-heads", 2),
            *("--decoder-attention-heads", 2, "--encoder-ffn-embed-dim", 16, "--decoder-ffn-embed-dim", 16),
        )
        content: dict[str, Any] = torch.load(path, weights_only=False)
        return content

    stock, ours = trained("translation"), trained("translation_knn")
    assert ours.keys() == stock.keys()
    assert ours["task_state"] == stock["task_state"]
    for content in (stock, ours):  # what depends on the clock
        for name in ("metrics", "previous_training_time"):
            content["extra_state"].pop(name)
    assert ours["extra_state"] == stock["extra_state"]
    assert list(ours["model"]) == list(stock["model"])
    assert all(torch.equal(tensor, stock["model"][name]) for name, tensor in ours["model"].items())
    assert ours["optimizer_history"] == stock["optimizer_history"]


PRECISIONS = [("--memory-efficient-fp16",), ("--amp",)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cached", [False, True])
def test_the_combiner_stays_in_single_precision(
    precision: tuple[object, ...], cached: bool, datastore: Path, tmp_path: Path
) -> None:
    """Plain ``--fp16`` is for GPUs: fairseq asks for one. With these the loss scale may cost the first updates."""
    settings = (*SETTINGS["adaptive"], *ON_VALID, *precision, *(("--knn-cache", tmp_path / "cache") if cached else ()))
    for updates in (8, 16):
        run = toy.train_combiner(tmp_path / "save", datastore, *settings, "--max-update", updates)
        assert run.status == 0, run.log[-2000:]
        content = checkpoint(tmp_path / "save")
        assert all(tensor.dtype == torch.float32 for tensor in content["model"].values())
        assert content["optimizer_history"][-1]["num_updates"] == updates
        assert figure(run, "nll_loss")[-1] < 1  # the base: 3.7
    assert toy.generate_with(tmp_path / "save" / "checkpoint_best.pt").bleu > 60
