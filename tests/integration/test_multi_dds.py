"""Stock fairseq-train learns how much to sample each language."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError
from tests import cli, languages, toy

SIZES = {"aa": 200, "bb": 60, "cc": 20}
NAMES = tuple(SIZES)
PAIRS = [f"{name}-eng" for name in NAMES]

# What the published systems have, but for the learning rate of an actor that learns fifty times as often.
ACTOR = (
    *("--update-language-sampling", 5, "--data-actor", "base", "--data-actor-lr", 0.05, "--data-actor-optim-step", 2),
    *("--utility-type", "ave", "--datasize-t", 1, "--pretrain-data-actor", "--pretrain-type", "datasize"),
)
MULTIDDS_S = (*ACTOR, "--data-actor-multilin")
LATER = ("--data-filter-percentage", 0.2, "--select-by-dds-epoch", 99)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return languages.write(tmp_path_factory.mktemp("data"), SIZES)


def rounds(run: cli.Run) -> list[dict[str, Any]]:
    """What the actor did, as it stands in the log."""
    return [json.loads(line.split("data actor: ", 1)[1]) for line in run.log.splitlines() if "data actor: {" in line]


def checkpoint(directory: Path, name: str = "checkpoint_last.pt") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(directory / name, weights_only=True)
    return loaded


def assert_same_training(one: Path, other: Path) -> None:
    """Parameters, moments, actor and what is read next are the same, bit by bit."""
    left, right = checkpoint(one), checkpoint(other)
    for name, tensor in left["model"].items():
        assert torch.equal(tensor, right["model"][name]), name
    assert_equal(left["last_optimizer_state"], right["last_optimizer_state"])
    for name in ("train_iterator", "TranslationMultiDdsTask"):
        assert_equal(left["extra_state"].get(name), right["extra_state"].get(name))


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cli.Run]:
    directory = tmp_path_factory.mktemp("trained")
    run = languages.train(
        directory,
        data,
        NAMES,
        *MULTIDDS_S,
        *("--max-update", 40, "--log-interval", 5, "--tensorboard-logdir", directory / "tensorboard"),
    )
    assert run.status == 0, run.log[-2000:]
    return directory, run


def test_the_log_shows_what_the_actor_does(trained: tuple[Path, cli.Run]) -> None:
    directory, run = trained
    made = rounds(run)
    assert [one["update"] for one in made] == [5, 10, 15, 20, 25, 30, 35, 40]
    for one in made:
        assert list(one["p"]) == PAIRS
        assert math.isclose(sum(one["p"].values()), 1, abs_tol=1e-5)
        matrix = np.array([list(row.values()) for row in one["similarity"].values()])
        np.testing.assert_allclose(matrix.mean(axis=0), list(one["reward"].values()), rtol=0, atol=2e-4)
        assert (np.abs(matrix) <= 1).all()
    start = re.search(r"drawn with the probabilities aa-eng ([\d.]+), bb-eng ([\d.]+), cc-eng ([\d.]+)", run.log)
    assert start is not None
    np.testing.assert_allclose([float(p) for p in start.groups()], np.array(list(SIZES.values())) / 280, atol=1e-4)
    assert made[-1]["p"]["aa-eng"] < 0.6  # from 0.71: similar rewards draw the probabilities together
    for name in ("dds_p/aa-eng", "dds_reward/cc-eng", "dds_similarity/bb-eng/aa-eng"):
        assert re.search(rf"{name}=-?[\d.]+", run.log), name
    shown = re.findall(r"num_updates=40.*dds_p/aa-eng=([\d.]+)", run.log)
    assert math.isclose(float(shown[-1]), made[-1]["p"]["aa-eng"], abs_tol=1e-3)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard" / "train_inner"))
    events.Reload()
    assert {"dds_p/aa-eng", "dds_reward/aa-eng", "dds_similarity/aa-eng/cc-eng"} <= set(events.Tags()["scalars"])


def test_the_probabilities_are_what_is_read(data: Path, tmp_path: Path) -> None:
    """From the first batch after a round on, the languages come in the new proportions."""
    run = languages.train(tmp_path, data, NAMES, *MULTIDDS_S, "--max-update", 12, "--update-freq", 2)
    segment = checkpoint(tmp_path)["extra_state"]["train_iterator"]["segment"]
    newest = rounds(run)[-1]
    assert newest["update"] == 10
    np.testing.assert_allclose(segment["probabilities"], list(newest["p"].values()), rtol=0, atol=1e-6)
    assert segment["start"] in (0, 20 % 18)  # two batches an update; an epoch has 18


def test_stock_fairseq_decodes(trained: tuple[Path, cli.Run], data: Path) -> None:
    directory, _ = trained
    arguments = (
        *(data, "--lang-pairs", ",".join(PAIRS), "--source-lang", "bb", "--target-lang", "eng"),
        *("--path", directory / "checkpoint_last.pt", "--gen-subset", "test", "--required-batch-size-multiple", 1),
    )
    ours = cli.generate(*arguments, "--task", "translation_multi_dds")
    assert len(ours.lines("H")) == 24
    stock = cli.run_stock_generate(*arguments, "--task", "translation_multi_simple_epoch")
    assert stock.status == 0, stock.log[-2000:]
    assert stock.lines() == ours.lines()


def test_without_its_flags_it_is_the_stock_task(data: Path, tmp_path: Path) -> None:
    parameters = []
    for task in ("translation_multi_simple_epoch", "translation_multi_dds"):
        run = languages.train(
            tmp_path / task, data, NAMES, "--task", task, "--max-update", 12, "--sampling-method", "temperature"
        )
        assert run.status == 0
        saved = checkpoint(tmp_path / task)
        parameters.append((saved["model"], saved["last_optimizer_state"], saved["extra_state"]["train_iterator"]))
        assert "TranslationMultiDdsTask" not in saved["extra_state"]
        assert not saved["task_state"]
    assert_equal(*parameters)


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (6, MULTIDDS_S),  # one update after a round, in the middle of an epoch
        (10, (*ACTOR, "--baseline")),  # at a round
        (6, (*MULTIDDS_S, "--sample-instance", "--update-freq", 2, "--data-actor", "lan")),
        (18, (*MULTIDDS_S, "--data-actor", "interpolate_grad")),  # at the end of an epoch
        (6, ("--data-actor", "ave_emb", "--data-actor-step-update", *LATER)),
    ],
    ids=["multidds-s", "multidds", "instances", "epoch", "selection"],
)
def test_stopped_and_resumed_equals_straight(stop: int, settings: Sequence[object], data: Path, tmp_path: Path) -> None:
    for directory, updates in (("straight", (23,)), ("resumed", (stop, 23))):
        for update in updates:
            run = languages.train(tmp_path / directory, data, NAMES, *settings, "--max-update", update)
            assert run.status == 0, run.log[-2000:]
    assert_same_training(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("method", ["multidds-s", "multidds"])
def test_a_language_that_teaches_nothing_is_read_less(method: str, seed: int, tmp_path: Path) -> None:
    """Two languages of the same words, one with the targets of other sentences."""
    data = languages.write(
        tmp_path / "data", {"aa": 400, "bb": 400}, shuffled={"bb": 1.0}, words_of={"bb": "aa"}, seed=seed
    )
    run = languages.train(
        *(tmp_path / "save", data, ["aa", "bb"], "--seed", seed, "--max-update", 150, "--disable-validation"),
        *("--batch-size", 32, "--update-language-sampling", 10, "--data-actor", "base", "--data-actor-lr", 0.01),
        *("--data-actor-optim-step", 5, "--loss-steps", 4),
        *(("--data-actor-multilin",) if method == "multidds-s" else ()),
    )
    made = rounds(run)
    for one in made:
        print(f"update {one['update']}: P of the shuffled language {one['p']['bb-eng']:.3f}, rewards {one['reward']}")
    assert made[-1]["p"]["bb-eng"] <= 0.45


def test_wrong_translations_are_rewarded_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the targets belong to other sentences. The actor learns from every batch, and leaves out a fifth."""
    from fairseq_knn.tasks.dds import sentence_selection

    rewards: list[torch.Tensor] = []
    wrong: list[torch.Tensor] = []
    measure, learn = sentence_selection.instance_rewards, sentence_selection.SentenceSelection.learn

    def measured(*arguments: Any) -> torch.Tensor:
        rewards.append(measure(*arguments))
        return rewards[-1]

    def learned(self: Any, sample: Any, *arguments: Any) -> None:
        learn(self, sample, *arguments)
        wrong.append(sample["id"] < 120)

    monkeypatch.setattr(sentence_selection, "instance_rewards", measured)
    monkeypatch.setattr(sentence_selection.SentenceSelection, "learn", learned)
    data = languages.write(tmp_path / "data", {"aa": 600}, shuffled={"aa": 0.2})
    settings = (
        *("--max-epoch", 9, "--batch-size", 32, "--disable-validation", "--data-actor-step-update"),
        *("--data-actor", "transformer", "--data-actor-lr", 0.001, "--loss-steps", 3),
        *("--data-filter-percentage", 0.2, "--select-by-dds-epoch", 9),
    )
    run = languages.train(tmp_path / "save", data, ["aa"], *settings)
    assert run.status == 0, run.log[-2000:]
    assert len(rewards) == 8 * 19  # batches; once sentences are left out, the actor has done its work
    late, theirs = torch.cat(rewards[76:152]), torch.cat(wrong[76:152])
    assert late[theirs].mean() < late[~theirs].mean() - 0.2
    ranks = late.argsort().argsort().double()
    count = int((~theirs).sum())
    area = (ranks[~theirs].mean() - (count - 1) / 2) / int(theirs.sum())
    assert area > 0.6  # of two sentences, a right one and a wrong one, the right one has the higher reward
    assert "aa-eng: 480 of 600 training sentences are kept" in run.log
    (mask,) = checkpoint(tmp_path / "save")["extra_state"]["train_iterator"]["kept"]
    assert int(np.unpackbits(mask.numpy()).sum()) == 480


@pytest.mark.parametrize("flag", ["--random-data-filter", "--random-data-filter-by-len"])
def test_leaving_out_at_random(flag: str, data: Path, tmp_path: Path) -> None:
    settings = ("--datasize-t", 1, "--data-filter-percentage", 0.5, "--select-by-dds-epoch", 2, flag)
    runs = [
        languages.train(tmp_path / name, data, NAMES, *settings, "--max-epoch", epochs)
        for name, epochs in (("straight", 3), ("resumed", 2), ("resumed", 3))
    ]
    assert all("aa-eng: 100 of 200 training sentences are kept" in run.log for run in runs[:2])
    assert "are kept" not in runs[2].log  # it is in the checkpoint
    assert_same_training(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.parametrize("to_english", [False, True])
def test_directions(to_english: bool, tmp_path: Path) -> None:
    """From English to many, with a tag of the target language; and both ways at once."""
    data = languages.write(tmp_path / "data", SIZES, to_english=False)
    if to_english:
        languages.write(data, SIZES)
    both = (*(f"eng-{name}" for name in NAMES), *(PAIRS if to_english else ()))
    run = languages.train(
        *(tmp_path / "save", data, NAMES, *MULTIDDS_S, "--lang-pairs", ",".join(both), "--encoder-langtok", "tgt"),
        *("--max-update", 6, "--scale-norm"),
    )
    assert run.status == 0, run.log[-2000:]
    assert list(rounds(run)[0]["p"]) == list(both)
    decoded = cli.generate(
        *(data, "--task", "translation_multi_dds", "--lang-pairs", ",".join(both), "--encoder-langtok", "tgt"),
        *("--source-lang", "eng", "--target-lang", "bb", "--gen-subset", "test"),
        *("--path", tmp_path / "save" / "checkpoint_last.pt"),
    )
    assert len(decoded.lines("H")) == 24


def test_a_model_trained_this_way_takes_a_datastore(data: Path, tmp_path: Path) -> None:
    run = languages.train(tmp_path / "save", data, NAMES, *MULTIDDS_S, "--max-update", 30, "--scale-norm")
    assert run.status == 0

    def generate(*arguments: object) -> cli.Run:
        return cli.generate(
            *(data, "--task", "translation_multi_simple_epoch_knn", "--lang-pairs", ",".join(PAIRS)),
            *("--source-lang", "aa", "--target-lang", "eng", "--path", tmp_path / "save" / "checkpoint_last.pt"),
            *("--knn-datastore-path", tmp_path / "store", *arguments),
        )

    built = generate("--gen-subset", "train", "--knn-mode", "build_datastore", "--score-reference", "--quiet")
    assert f"{SIZES['aa']} of {SIZES['aa']} sentences of 'train' processed" in built.closing_line
    assert Datastore.load(tmp_path / "store").entries > SIZES["aa"]
    base = generate("--gen-subset", "test", "--knn-lambda", 0)
    mixed = generate("--gen-subset", "test", "--knn-lambda", 0.8)
    assert base.lines("D") != mixed.lines("D")
    assert mixed.bleu >= base.bleu


def test_long_sentences_and_small_languages(tmp_path: Path) -> None:
    data = languages.write(tmp_path / "data", {"aa": 100, "bb": 9}, valid=5)
    settings = (*MULTIDDS_S, "--max-source-positions", 6, "--max-target-positions", 6, "--max-update", 11)
    run = languages.train(
        *(tmp_path / "save", data, ["aa", "bb"], *settings, "--skip-invalid-size-inputs-valid-test"),
        *("--loss-steps", 3, "--max-tokens", 60),
    )
    assert run.status == 0, run.log[-2000:]
    assert re.search(r"aa-eng: \d+ of 100 training sentences are left out, longer than the \(6, 6\) tokens", run.log)
    assert len(rounds(run)) == 2


def test_rewards_that_are_no_numbers(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairseq_knn.tasks.dds import data_actor_training

    monkeypatch.setattr(data_actor_training, "similarity_matrix", lambda *_: torch.full((3, 3), torch.nan).double())
    run = languages.train(tmp_path, data, NAMES, *MULTIDDS_S, "--max-update", 6)
    assert run.status == 0
    assert "update 5: a reward is not a finite number" in run.log
    assert not rounds(run)


@pytest.mark.parametrize(
    "settings", [("--num-workers", 2), ("--update-freq", 2), ("--fp16", "--memory-efficient-fp16")]
)
def test_settings_of_training(settings: Sequence[object], data: Path, tmp_path: Path) -> None:
    run = languages.train(tmp_path, data, NAMES, *MULTIDDS_S, "--max-update", 6, *settings)
    assert run.status == 0, run.log[-2000:]
    assert [one["update"] for one in rounds(run)] == [5]


@pytest.mark.parametrize(
    "settings",
    [
        ("--data-actor", "base_weight", "--grad-sim", "dot_prod"),
        ("--data-actor", "only_grad", "--utility-type", "min-half", "--language-weight", "1,2,1"),
        ("--data-actor", "lan", "--utility-type", "median", "--scale-reward", "--switch-obj-epoch", 2),
        ("--utility-type", "max-half", "--pretrain-type", "lan_dist", "--lan-dists", "1,1,2"),
    ],
)
@pytest.mark.parametrize("method", [(), ("--data-actor-multilin",)], ids=["multidds", "multidds-s"])
def test_actors_and_utilities(settings: Sequence[object], method: Sequence[object], data: Path, tmp_path: Path) -> None:
    run = languages.train(tmp_path, data, NAMES, *ACTOR, *settings, *method, "--max-update", 10, "--disable-validation")
    assert run.status == 0, run.log[-2000:]
    assert len(rounds(run)) == 2
    if "--lan-dists" in settings:
        assert "drawn with the probabilities aa-eng 0.2500, bb-eng 0.2500, cc-eng 0.5000" in run.log


BAD_INPUT = [
    (("--update-language-sampling", 0), "--update-language-sampling 0 is no number of updates"),
    (("--update-language-sampling", 5), "no --data-actor is named: pass one of base, base_weight"),
    (("--data-actor", "base"), "pass --update-language-sampling K"),
    (("--data-actor", "ave_emb", "--update-language-sampling", 5), "--data-actor ave_emb scores sentences"),
    (("--data-actor", "transformer"), "pass --data-actor-step-update"),
    (("--data-filter-percentage", 0.2), "needs scores of sentences"),
    (("--select-by-dds-epoch", 2), "say which with --data-filter-percentage"),
    ((*MULTIDDS_S, "--sampling-method", "temperature"), "--sampling-method is stock's way"),
    ((*MULTIDDS_S, "--language-weight", "1,2"), "--language-weight holds 2 weights for 3 development languages"),
    ((*MULTIDDS_S, "--lan-dists", "1,2,3"), "--lan-dists and --pretrain-type lan_dist go together"),
    ((*MULTIDDS_S, "--eval-lang-pairs", "aa-eng,dd-eng"), "--eval-lang-pairs names dd-eng, but --lang-pairs is"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng,dd-eng"), "dd-eng has no data for 'valid'"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng,bb"), "--lang-pairs has 'bb', which is no pair"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng,aa-eng"), "names a pair twice"),
    ((*MULTIDDS_S, "--langs", "aa,bb,eng"), "--lang-pairs has cc-eng, but --langs aa,bb,eng lacks cc: add it there"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng,ee-eng"), "dict.ee.txt: DATA has one for every language"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng,ff-eng"), "dict.ff.txt is another dictionary than dict.aa.txt"),
    ((*MULTIDDS_S, "--datasize-t", 0), "--datasize-t is 0.0: pass a temperature above 0"),
    ((*MULTIDDS_S, "--curriculum", 1), "--curriculum"),
    ((*MULTIDDS_S, "--eval-lang-pairs", "aa-eng,aa-eng"), "--eval-lang-pairs aa-eng,aa-eng names a pair twice"),
    (("--pretrain-type", "lan_dist", "--lan-dists", "1,1,1"), "--lan-dists is where an actor of languages starts"),
    (("--data-actor", "ave_emb", "--data-actor-step-update"), "say how many with --data-filter-percentage"),
    ((*MULTIDDS_S, "--lan-embed-dim", 4), "--lan-embed-dim is a setting of the actor lan, but --data-actor is base"),
    (("--data-actor-multilin",), "--data-actor-multilin is a setting of the actor base or base_weight or"),
    ((*MULTIDDS_S, "--lang-pairs", "aa-eng, bb-eng"), "--lang-pairs has ' bb-eng', which is no pair"),
    ((*MULTIDDS_S, "--disable-validation", "--valid-subset", "nowhere"), "aa-eng has no data for 'nowhere'"),
    ((*MULTIDDS_S, "--virtual-data-size", 0), "--virtual-data-size is 0"),
    ((*MULTIDDS_S, "--checkpoint-activations"), "--checkpoint-activations computes activations again"),
    ((*MULTIDDS_S, "--eval-bleu"), "--eval-bleu is not supported"),
    ((*MULTIDDS_S, "--dataset-type", "tcs"), "--dataset-type tcs is not supported"),
    ((*MULTIDDS_S, "--data-actor", "lan", "--embedding-file", "nowhere"), "--embedding-file nowhere cannot be read"),
    ((*ACTOR, "--data-actor", "base_weight", "--eval-lang-pairs", "aa-eng"), "--eval-lang-pairs"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD_INPUT, ids=[str(i) for i in range(len(BAD_INPUT))])
def test_bad_input(settings: Sequence[object], sentence: str, data: Path, tmp_path: Path) -> None:
    ours = (data / "dict.aa.txt").read_text(encoding="utf-8")
    (data / "dict.dd.txt").write_text(ours, encoding="utf-8")
    (data / "dict.ff.txt").write_text(f"{ours}more 1\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        languages.train(tmp_path, data, NAMES, "--max-update", 1, *settings)


def test_a_language_without_development_data(tmp_path: Path) -> None:
    data = languages.write(tmp_path / "data", SIZES)
    for path in data.glob("valid.cc-eng.*"):
        path.unlink()
    settings = (*MULTIDDS_S, "--max-update", 6)
    with pytest.raises(ConfigurationError, match=r"cc-eng has no data for 'valid'.*--eval-lang-pairs"):
        languages.train(tmp_path / "save", data, NAMES, *settings)
    run = languages.train(tmp_path / "save", data, NAMES, *settings, "--eval-lang-pairs", "aa-eng,bb-eng")
    assert run.status == 0, run.log[-2000:]
    assert list(rounds(run)[0]["similarity"]) == ["aa-eng", "bb-eng"]


def test_resuming_with_another_set_of_languages(trained: tuple[Path, cli.Run], data: Path, tmp_path: Path) -> None:
    directory, _ = trained
    (tmp_path / "checkpoint_last.pt").write_bytes((directory / "checkpoint_last.pt").read_bytes())
    with pytest.raises(ConfigurationError, match="trained with the languages aa-eng, bb-eng, cc-eng, but this run has"):
        languages.train(tmp_path, data, ["aa", "bb"], "--langs", "aa,bb,cc,eng", *MULTIDDS_S, "--max-update", 50)
    with pytest.raises(
        ConfigurationError, match="has an actor --data-actor base, but this run has one --data-actor lan"
    ):
        languages.train(tmp_path, data, NAMES, *MULTIDDS_S, "--data-actor", "lan", "--max-update", 50)


def test_resuming_without_an_actor(trained: tuple[Path, cli.Run], data: Path, tmp_path: Path) -> None:
    directory, _ = trained
    (tmp_path / "checkpoint_last.pt").write_bytes((directory / "checkpoint_last.pt").read_bytes())
    with pytest.raises(
        ConfigurationError, match="has an actor of languages, but this run has none: pass --update-lang"
    ):
        languages.train(tmp_path, data, NAMES, "--max-update", 50)


def test_the_actor_outlives_the_order_of_the_data(trained: tuple[Path, cli.Run], data: Path, tmp_path: Path) -> None:
    directory, run = trained
    (tmp_path / "checkpoint_last.pt").write_bytes((directory / "checkpoint_last.pt").read_bytes())
    settings = (*MULTIDDS_S, "--reset-dataloader", "--data-actor-lr", 1e-9, "--max-update", 46)
    again = languages.train(tmp_path, data, NAMES, *settings)
    assert rounds(again)[0]["p"] == pytest.approx(rounds(run)[-1]["p"], abs=1e-5)
    segment = checkpoint(tmp_path)["extra_state"]["train_iterator"]["segment"]
    assert segment["probabilities"] == pytest.approx(list(rounds(run)[-1]["p"].values()), abs=1e-5)


@pytest.mark.parametrize("with_it", [False, True])
def test_scale_norm_is_part_of_a_model(with_it: bool, data: Path, tmp_path: Path) -> None:
    flags = ("--scale-norm",) if with_it else ()
    languages.train(tmp_path, data, NAMES, "--max-update", 2, *flags)
    others = () if with_it else ("--scale-norm",)
    with pytest.raises(Exception, match="architectures match") as told:
        languages.train(tmp_path, data, NAMES, "--max-update", 4, *others)
    assert isinstance(told.value.__context__, ConfigurationError)
    assert f"trained {'with' if with_it else 'without'} --scale-norm" in str(told.value.__context__)


def test_shards_of_data(tmp_path: Path) -> None:
    """The probabilities come from the sizes of all shards, whichever is read first."""
    shards = [
        languages.write(tmp_path / str(number), {"aa": aa, "bb": bb}, seed=number)
        for number, (aa, bb) in enumerate([(40, 40), (20, 100)])
    ]
    both = ":".join(map(str, shards))
    settings = ("--datasize-t", 1, "--batch-size", 8)
    for directory, epochs in (("straight", (3,)), ("resumed", (1, 3))):
        for epoch in epochs:
            run = languages.train(tmp_path / directory, Path(both), ["aa", "bb"], *settings, "--max-epoch", epoch)
            assert run.status == 0, run.log[-2000:]
            assert "drawn with the probabilities aa-eng 0.3000, bb-eng 0.7000" in run.log
    assert_same_training(tmp_path / "straight", tmp_path / "resumed")


def test_one_sentence_and_status_1(data: Path, tmp_path: Path) -> None:
    """As a user sees it."""
    run = cli.run(
        "fairseq-train",
        *(data, "--user-dir", cli.PACKAGE, "--task", "translation_multi_dds", "--lang-pairs", ",".join(PAIRS)),
        *("--arch", "transformer", "--save-dir", tmp_path, "--max-tokens", 100, "--cpu"),
        *("--update-language-sampling", 0, "--data-actor", "base"),
    )
    assert run.status == 1
    assert "Traceback" not in run.log
    assert len(run.errors) == 1
    assert toy.content(tmp_path) == {}
