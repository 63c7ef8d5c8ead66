"""Training students of speech translation with an expert, with stock's programs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.imitation.expert_cache_writer import ExpertCacheWriter
from tests import cli, imitation, speech

SIZES = {"train": 120, "valid": 12, "test": 13}
SPECAUGMENT = (
    "transforms:\n  _train: [specaugment]\nspecaugment: {freq_mask_F: 20, freq_mask_N: 1, time_mask_N: 1, "
    "time_mask_T: 10, time_mask_p: 1.0, time_wrap_W: 0}\n"
)
AUGMENTED = "augmented.yaml"
TASK = "speech_to_text_imitkd"
QUICK = ("--disable-validation",)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> speech.World:
    made = speech.write(tmp_path_factory.mktemp("world") / "data", SIZES)
    (made.data / AUGMENTED).write_text((made.data / speech.CONFIG).read_text() + SPECAUGMENT)
    return made


@pytest.fixture(scope="module")
def expert(world: speech.World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translation model that knows the toy world."""
    root = tmp_path_factory.mktemp("expert")
    return imitation.train_expert(root / "model", imitation.write_text(root / "text", world))


@pytest.fixture(scope="module")
def hearing(world: speech.World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of speech, as an expert that hears or to begin with."""
    return speech.trained(tmp_path_factory.mktemp("hearing"), world.data, updates=4)


def succeed(run: cli.Run) -> cli.Run:
    assert run.status == 0, run.log[-3000:]
    return run


def same_parameters(one: Path, other: Path) -> bool:
    left, right = imitation.parameters(one), imitation.parameters(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def last(directory: Path) -> Path:
    return directory / "checkpoint_last.pt"


def logged(log: str, name: str) -> list[float]:
    """A figure in the lines that ``--log-interval 1`` writes about updates."""
    return [float(found) for found in re.findall(rf"\b{name}=([-\d.e]+)", log)]


def validated(log: str, name: str) -> list[str]:
    """A figure of every validation, as it is shown."""
    lines = [line for line in log.splitlines() if " on 'valid' subset |" in line]
    return [found[1] for line in lines if (found := re.search(rf"\| {name} ([-\d.e]+)", line))]


def codes(path: Path, words: int = speech.WORDS) -> Path:
    """Codes of subword-nmt that leave the toy world's words whole."""
    merges = [(f"s{word}"[:end], f"s{word}"[end]) for word in range(words) for end in range(1, len(f"s{word}"))]
    ends = [
        f"{left} {right}</w>" for left, right in merges if f"{left}{right}" in {f"s{word}" for word in range(words)}
    ]
    inner = [f"{left} {right}" for left, right in merges if len(left + right) == 2]
    path.write_text("#version: 0.2\n" + "".join(f"{line}\n" for line in dict.fromkeys(inner + ends)))
    return path


def test_the_published_command(world: speech.World, expert: Path, hearing: Path, tmp_path: Path) -> None:
    """Every flag of it; the encoder stays as it was pretrained; stock decodes the student without the plug-in."""
    data = world.data
    dictionary = data / "dict.txt"
    run = cli.call(
        "fairseq-train",
        *(data, "--config-yaml", "config.yaml", "--train-subset", "train", "--valid-subset", "valid"),
        *("--num-workers", 0, "--max-tokens", 50000, "--max-update", 3, "--task", "speech_to_text_imitkd"),
        *("--criterion", "imit_kd", "--report-accuracy", *speech.MODEL, "--arch", "s2t_transformer_s"),
        *("--optimizer", "adam", "--lr", 0.002, "--lr-scheduler", "inverse_sqrt", "--seed", 1, "--clip-norm", 10.0),
        *("--expert", expert, "--expert-vocab-tgt", dictionary, "--expert-vocab-src", data / "dict.src.txt"),
        *("--path", dictionary, "--save-dir", tmp_path / "student", "--bpe-codes", codes(tmp_path / "codes")),
        *("--warmup-updates", 10, "--clip-norm", 10.0, "--seed", 1, "--update-freq", 8, "--patience", 10),
        *("--load-pretrained-encoder-from", hearing, "--encoder-freezing-updates", 1000),
        *("--user-dir", cli.PACKAGE, "--cpu", "--no-epoch-checkpoints", "--log-format", "simple"),
    )
    succeed(run)
    student = last(tmp_path / "student")
    before, after = imitation.parameters(hearing), imitation.parameters(student)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    decoder = [name for name in before if name.startswith("decoder.")]
    assert not all(torch.equal(before[name], after[name]) for name in decoder)
    assert "of which the expert knows 100.00%" in run.log
    for figure in ("accuracy", "kd_agreement", "kd_loss", "ppl"):
        assert len(validated(run.log, figure)) == 3, figure
    translated = cli.run_stock_generate(
        *(data, "--config-yaml", "config.yaml", "--gen-subset", "test", "--task", "speech_to_text"),
        *("--path", student, "--max-tokens", 50000, "--num-workers", 0, "--beam", 1, "--max-len-b", 6),
        *("--required-batch-size-multiple", 1),
    )
    assert translated.status == 0, translated.log[-2000:]
    assert len(translated.hypotheses()) == SIZES["test"]


def test_checkpoints_hold_no_expert(world: speech.World, expert: Path, tmp_path: Path) -> None:
    succeed(imitation.train(tmp_path / "imitated", world, expert, *QUICK, updates=2))
    succeed(speech.train(tmp_path / "plain", world.data, *QUICK, task=TASK, updates=2))
    imitated, plain = last(tmp_path / "imitated"), last(tmp_path / "plain")
    assert imitated.stat().st_size == pytest.approx(plain.stat().st_size, rel=0.01)
    states = [torch.load(path, weights_only=False) for path in (imitated, plain)]
    assert not states[0]["criterion"]
    optimised = [state["last_optimizer_state"]["state"] for state in states]
    assert len(optimised[0]) == len(optimised[1])


def test_a_stock_criterion_makes_it_the_stock_task(world: speech.World, tmp_path: Path) -> None:
    """With augmentation, which the task does not touch then."""
    arguments = ("--config-yaml", AUGMENTED, "--required-batch-size-multiple", 1)
    runs = {
        task: speech.train(tmp_path / task, world.data, *arguments, task=task, updates=6)
        for task in (TASK, "speech_to_text")
    }
    assert same_parameters(*(last(tmp_path / task) for task in runs))
    losses = [validated(succeed(run).log, "loss") for run in runs.values()]
    assert losses[0] == losses[1] != []


def test_validation_is_stocks(world: speech.World, expert: Path, hearing: Path, tmp_path: Path) -> None:
    """Loss, perplexity and accuracy of one model, to the last digit that is shown."""
    model = ("--finetune-from-model", hearing, "--lr", 0, "--report-accuracy", "--required-batch-size-multiple", 1)
    imitated = imitation.train(tmp_path / "imitated", world, expert, *model, updates=1)
    smoothed = ("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.0)
    stock = speech.train(tmp_path / "stock", world.data, *smoothed, *model, updates=1)
    for figure in ("loss", "nll_loss", "ppl", "accuracy"):
        assert validated(succeed(imitated).log, figure) == validated(succeed(stock).log, figure) != [], figure
    assert 0 <= float(validated(imitated.log, "kd_agreement")[0]) <= 1


def test_beta_follows_the_updates_and_resumes(world: speech.World, expert: Path, tmp_path: Path) -> None:
    """Parameters and Adam's state are bit for bit those of a run that was not interrupted, with augmentation and other
    numbers of loading workers; beta is right in the first step after it went on."""
    arguments = (*QUICK, "--config-yaml", AUGMENTED, "--log-interval", 1, "--save-interval-updates", 3)
    straight = succeed(imitation.train(tmp_path / "straight", world, expert, *arguments, updates=8))
    beta = [200 ** (-update / 8) for update in range(8)]
    assert logged(straight.log, "kd_beta") == pytest.approx(beta, abs=6e-5)
    assert beta[4] == pytest.approx(0.0707, abs=1e-4)
    assert logged(straight.log, "kd_student_share")[0] == 0
    for workers, kept, gone in ((2, "checkpoint_1_3.pt", 3), (0, "checkpoint_2_6.pt", 6)):
        directory = tmp_path / f"from_{gone}"
        directory.mkdir()
        shutil.copy(tmp_path / "straight" / kept, last(directory))
        resumed = succeed(imitation.train(directory, world, expert, *arguments, "--num-workers", workers, updates=8))
        assert logged(resumed.log, "kd_beta") == pytest.approx(beta[gone:], abs=6e-5)
        assert same_parameters(last(directory), last(tmp_path / "straight"))
        one, other = (torch.load(last(each), weights_only=False) for each in (directory, tmp_path / "straight"))
        for number, moments in one["last_optimizer_state"]["state"].items():
            for name, value in moments.items():
                assert torch.equal(
                    torch.as_tensor(value), torch.as_tensor(other["last_optimizer_state"]["state"][number][name])
                )


def test_going_on_at_the_end_of_an_epoch(world: speech.World, expert: Path, tmp_path: Path) -> None:
    arguments = (*QUICK, "--config-yaml", AUGMENTED, "--beta-schedule", "constant", "--beta-value", 0.5)
    succeed(imitation.train(tmp_path / "straight", world, expert, *arguments, updates=7))
    succeed(imitation.train(tmp_path / "parted", world, expert, *arguments, updates=5))  # five batches an epoch
    succeed(imitation.train(tmp_path / "parted", world, expert, *arguments, updates=7))
    assert same_parameters(last(tmp_path / "straight"), last(tmp_path / "parted"))


def test_epochs_as_the_horizon(world: speech.World, expert: Path, tmp_path: Path) -> None:
    """With 5 batches, 3 updates in the first epoch, then 2."""
    arguments = (*QUICK, "--max-epoch", 3, "--update-freq", "2,4", "--log-interval", 1)
    run = succeed(imitation.train(tmp_path, world, expert, *arguments, updates=0))
    assert logged(run.log, "kd_beta") == pytest.approx([200 ** (-update / 7) for update in range(7)], abs=6e-5)


def test_decoding_together_changes_nothing(world: speech.World, expert: Path, tmp_path: Path) -> None:
    """Updates of four batches of which three and one are decoded together; the last update of an epoch is shorter."""
    arguments = (*QUICK, "--batch-size", 8, "--update-freq", 4, "--beta-schedule", "constant", "--beta-value", 0.3)
    # Wider kernels hear what an utterance is padded with.
    start = ("--log-interval", 1, "--conv-kernel-sizes", "1,1")
    alone = succeed(imitation.train(tmp_path / "alone", world, expert, *arguments, *start, updates=6))
    pooled = succeed(imitation.train(tmp_path / "pooled", world, expert, *arguments, *start, "--kd-pool", 3, updates=6))
    assert logged(alone.log, "kd_student_share") == logged(pooled.log, "kd_student_share")
    one, other = (imitation.parameters(last(tmp_path / name)) for name in ("alone", "pooled"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("output", ["argmax", "topk"])
def test_a_cache_changes_nothing(output: str, world: speech.World, expert: Path, tmp_path: Path) -> None:
    arguments = (*QUICK, "--kd-expert-output", output, "--beta-schedule", "constant", "--beta-value", 0.6)
    cached = ("--kd-cache", tmp_path / "cache")
    succeed(imitation.train(tmp_path / "asked", world, expert, *arguments, updates=5))
    filled = succeed(imitation.train(tmp_path / "filled", world, expert, *arguments, *cached, updates=5))
    again = succeed(imitation.train(tmp_path / "again", world, expert, *arguments, *cached, updates=5))
    assert "asking the expert about 120 references" in filled.log
    assert "asking the expert" not in again.log
    assert same_parameters(last(tmp_path / "filled"), last(tmp_path / "again"))
    if output == "argmax":
        assert same_parameters(last(tmp_path / "asked"), last(tmp_path / "filled"))
    else:  # probabilities of other batches differ in their last bits
        one, other = (imitation.parameters(last(tmp_path / name)) for name in ("asked", "filled"))
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-3, rtol=1e-3)


def test_a_cache_that_was_interrupted_goes_on_and_is_of_one_expert(
    world: speech.World, expert: Path, hearing: Path, tmp_path: Path
) -> None:
    arguments = (*QUICK, "--batch-size", 16, "--kd-cache", tmp_path / "cache", "--max-target-positions", 5)
    put = ExpertCacheWriter.put
    asked = []

    def fail(self: ExpertCacheWriter, sentence: int, *what: Any) -> None:
        if len(asked) == 20:
            self.flush()
            raise KeyboardInterrupt
        asked.append(sentence)
        put(self, sentence, *what)

    with mock.patch.object(ExpertCacheWriter, "put", fail), pytest.raises(KeyboardInterrupt):
        imitation.train(tmp_path / "killed", world, expert, *arguments, updates=2)
    run = succeed(imitation.train(tmp_path / "student", world, expert, *arguments, updates=2))
    taken = [each for each in world.utterances["train"] if len(each.target.split()) <= 5]
    assert len(taken) < SIZES["train"]  # too long ones are not trained on, so the expert is not asked about them
    (missing,) = re.findall(r"asking the expert about (\d+) references", run.log)
    assert int(missing) == len(taken) - 20
    other = imitation.train_expert(tmp_path / "other", expert.parent.parent / "text", updates=2)
    with pytest.raises(ConfigurationError, match="another expert"):
        imitation.train(tmp_path / "refused", world, other, *arguments, updates=2)


PRESETS = ("imitation_kd", "imit_kd", "imit_kd_CE", "imit_kd_ast", "imit_kd_ast_pure_kd", "kd")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name: str, world: speech.World, expert: Path, hearing: Path, tmp_path: Path) -> None:
    model = hearing if "ast" in name else expert
    run = succeed(imitation.train(tmp_path, world, model, *QUICK, criterion=name, updates=2))
    assert "kd_beta" in run.log
    state = torch.load(last(tmp_path), weights_only=False)
    assert state["optimizer_history"][-1]["criterion_name"].startswith("Imit" if name != "kd" else "Kd")


def test_students_learn_what_the_expert_says(world: speech.World, expert: Path, tmp_path: Path) -> None:
    for name in ("kd", "imit_kd"):
        run = succeed(imitation.train(tmp_path / name, world, expert, "--log-interval", 20, criterion=name, updates=60))
        losses, agreement = logged(run.log, "kd_loss"), [float(each) for each in validated(run.log, "kd_agreement")]
        assert losses[-1] < 0.8 * losses[0], (name, losses)
        assert agreement[-1] > agreement[0] + 0.1


@pytest.fixture
def few(world: speech.World, tmp_path: Path) -> speech.World:
    """A copy of the manifests, to spoil."""
    data = tmp_path / "data"
    shutil.copytree(world.data, data, ignore=shutil.ignore_patterns("features"))
    (data / "features").symlink_to(world.data / "features")
    return replace(world, data=data)


def rewrite(world: speech.World, split: str, old: str, new: str) -> None:
    path = world.data / f"{split}.tsv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_no_transcripts(few: speech.World, expert: Path, tmp_path: Path) -> None:
    """The real program: one sentence, no traceback."""
    rewrite(few, "train", "src_text", "other_text")
    run = cli.run(
        "fairseq-train",
        *(few.data, "--task", TASK, "--criterion", "imit_kd", *imitation.flags(expert, few), *speech.MODEL),
        *("--optimizer", "adam", "--batch-size", 30, "--max-update", 1, "--save-dir", tmp_path / "student"),
        *("--valid-subset", "valid", "--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert run.status == 1
    assert "Traceback" not in run.log
    (sentence,) = run.errors
    assert "train.tsv has no transcripts" in sentence
    assert "src_text" in sentence


def blank(world: speech.World) -> None:
    first = world.utterances["train"][0]
    rewrite(world, "train", f"speaker\t{first.source}\n", "speaker\t \n")


def cut(world: speech.World) -> None:
    """A line that ends early."""
    first = world.utterances["train"][0]
    rewrite(world, "train", f"\tspeaker\t{first.source}\n", "\tspeaker\n")


def unknown(world: speech.World) -> None:
    for split in ("train", "valid"):
        path = world.data / f"{split}.tsv"
        path.write_text(re.sub(r"\bs(\d+)\b", r"Z\1", path.read_text()))


def permuted(world: speech.World) -> None:
    lines = (world.data / "dict.txt").read_text().splitlines()
    (world.data / "dict.txt").write_text("\n".join([*lines[1:], lines[0]]) + "\n")


def larger(world: speech.World) -> None:
    with (world.data / "dict.txt").open("a") as file:
        file.write("more 1\n")


def without_audio(world: speech.World) -> None:
    rewrite(world, "train", "train_7.npy", "train_700.npy")


def without_manifest(world: speech.World) -> None:
    (world.data / "valid.tsv").unlink()


def without_configuration(world: speech.World) -> None:
    (world.data / speech.CONFIG).unlink()


def without_dictionary(world: speech.World) -> None:
    (world.data / "dict.txt").unlink()


def in_latin(world: speech.World) -> None:
    path = world.data / "train.tsv"
    path.write_bytes(path.read_bytes().replace(b"speaker\ts", b"speaker\t\xe9", 2))


def with_tags_at_the_end(world: speech.World) -> None:
    with (world.data / speech.CONFIG).open("a") as file:
        file.write("prepend_bos_and_append_tgt_lang_tag: true\n")


def with_tags_that_are_not_given(world: speech.World) -> None:
    with (world.data / speech.CONFIG).open("a") as file:
        file.write("prepend_tgt_lang_tag: true\n")


def joining(world: speech.World) -> None:
    with (world.data / speech.CONFIG).open("a") as file:
        file.write("dataset_transforms: {_train: [concataugment]}\n")


SPOILED = {
    blank: "1 of 120 transcripts of train.tsv are blank .* ids train_0",
    cut: "1 of 120 transcripts of train.tsv are blank .* ids train_0",
    unknown: "not in the expert's dictionary .* --kd-max-oov 0.05",
    permuted: "are not the same: symbol 4 is 't1' in the one and 't0' in the other",
    larger: "dictionary has 25 symbols, the expert's target dictionary 24",
    without_audio: "1 of 120 audio files of .*train.tsv do not exist .*train_700.npy",
    in_latin: "train.tsv is no UTF-8 text",
    without_manifest: "valid.tsv does not exist",
    without_configuration: "config.yaml does not exist",
    without_dictionary: "dict.txt does not exist",
    with_tags_at_the_end: "prepend_bos_and_append_tgt_lang_tag",
    with_tags_that_are_not_given: "--ignore-prefix-size 1",
    joining: "concataugment",
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_spoiled_data(spoil: Any, few: speech.World, world: speech.World, expert: Path, tmp_path: Path) -> None:
    spoil(few)
    dictionaries = imitation.flags(expert, world)
    with pytest.raises(UserError, match=f"(?s){SPOILED[spoil]}"):
        imitation.train(tmp_path / "student", few, expert, *dictionaries, updates=1)


FLAGS = {
    "no expert": (("--expert", "nowhere.pt"), "nowhere.pt does not exist"),
    "no dictionary": (("--expert-vocab-src", "nowhere.txt"), "no dictionary nowhere.txt"),
    "no codes": (("--bpe-codes", "nowhere.codes"), "nowhere.codes"),
    "no encoder": (("--load-pretrained-encoder-from", "nowhere.pt"), "nowhere.pt does not exist"),
    "no length": (("--max-update", "0", "--max-epoch", "0"), "neither of them is given"),
    "two lengths": (("--max-epoch", "3"), "both --max-update and --max-epoch"),
    "pool": (("--kd-pool", "3", "--update-freq", "2"), "--kd-pool 3"),
    "hearing": (("--kd-expert-input", "audio"), "reads text .* hears audio"),
    "refused": (("--criterion", "imit_kd_mixer"), "--criterion imit_kd_mixer of the original code"),
    "stock task": (("--task", "speech_to_text"), "--task speech_to_text_imitkd"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags_that_do_not_fit(name: str, world: speech.World, expert: Path, tmp_path: Path) -> None:
    arguments, message = FLAGS[name]
    with pytest.raises(UserError, match=f"(?s){message}"):
        imitation.train(tmp_path, world, expert, *arguments, updates=2)


def test_an_encoder_that_is_none(few: speech.World, expert: Path, tmp_path: Path) -> None:
    for path, reason in ((few.data / "dict.txt", "pop from empty list"), (expert, "Error.s. in loading state_dict")):
        with pytest.raises(
            ConfigurationError, match=f"cannot begin with --load-pretrained-encoder-from .*{reason}"
        ) as it:
            imitation.train(tmp_path, few, expert, "--load-pretrained-encoder-from", path, updates=1)
        assert "\n" not in str(it.value)


def test_an_expert_of_speech_where_one_of_text_is_needed(world: speech.World, hearing: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"hears audio .* reads text"):
        imitation.train(tmp_path, world, hearing, updates=2)


def test_several_manifests(world: speech.World, few: speech.World, expert: Path, tmp_path: Path) -> None:
    """Trained on together they give what one manifest with all their lines gives."""
    lines = (world.data / "train.tsv").read_text().splitlines(keepends=True)
    (few.data / "train_a.tsv").write_text("".join(lines[:51]))
    (few.data / "train_b.tsv").write_text("".join([lines[0], *lines[51:]]))
    arguments = (*QUICK, "--batch-size", 120, "--config-yaml", AUGMENTED)
    succeed(imitation.train(tmp_path / "one", world, expert, *arguments, updates=3))
    several = ("--train-subset", "train_a,train_b")
    succeed(imitation.train(tmp_path / "two", few, expert, *arguments, *several, updates=3))
    one, other = (imitation.parameters(last(tmp_path / name)) for name in ("one", "two"))
    for name in one:  # sums of other orders
        torch.testing.assert_close(one[name], other[name], atol=2e-4, rtol=1e-3)


def test_several_manifests_of_other_shares(few: speech.World, expert: Path, tmp_path: Path) -> None:
    lines = (few.data / "train.tsv").read_text().splitlines(keepends=True)
    (few.data / "train_a.tsv").write_text("".join(lines[:31]))
    (few.data / "train_b.tsv").write_text("".join([lines[0], *lines[31:]]))
    with (few.data / speech.CONFIG).open("a") as file:
        file.write("sampling_alpha: 0.5\n")
    several = (*QUICK, "--train-subset", "train_a,train_b", "--save-interval-updates", 3)
    cached = ("--kd-cache", tmp_path / "cache")
    succeed(imitation.train(tmp_path / "straight", few, expert, *several, *cached, updates=8))
    (tmp_path / "parted").mkdir()
    shutil.copy(tmp_path / "straight" / "checkpoint_2_6.pt", last(tmp_path / "parted"))
    succeed(imitation.train(tmp_path / "parted", few, expert, *several, updates=8))
    assert same_parameters(last(tmp_path / "straight"), last(tmp_path / "parted"))


SETTINGS = """
task: {_name: speech_to_text_imitkd, data: DATA, max_source_positions: 600, max_target_positions: 60}
criterion: {_name: imit_kd, expert: EXPERT, expert_vocab_src: DATA/dict.src.txt, expert_vocab_tgt: DATA/dict.txt}
checkpoint: {save_dir: STUDENT, no_epoch_checkpoints: true}
model:
  _name: s2t_transformer
  encoder_layers: 1
  decoder_layers: 1
  conv_channels: 32
  encoder_embed_dim: 32
  encoder_ffn_embed_dim: 64
  encoder_attention_heads: 2
  decoder_embed_dim: 32
  decoder_ffn_embed_dim: 64
  decoder_attention_heads: 2
  max_source_positions: 600
  max_target_positions: 60
common: {cpu: true, log_format: simple, seed: 3}
dataset: {batch_size: 30, num_workers: 0, train_subset: train, valid_subset: valid}
optimization: {max_update: 2, lr: [0.003]}
optimizer: {_name: adam, lr: [0.003]}
lr_scheduler: {_name: fixed, lr: [0.003]}
hydra: {job: {chdir: false}, run: {dir: "${checkpoint.save_dir}"}}
"""


def test_hydra_trains_it(world: speech.World, expert: Path, tmp_path: Path) -> None:
    places = {"DATA": world.data, "EXPERT": expert, "STUDENT": tmp_path / "student"}
    settings = SETTINGS
    for name, path in places.items():
        settings = settings.replace(name, str(path))
    (tmp_path / "tiny.yaml").write_text(settings)
    run = cli.call(
        "fairseq-hydra-train",
        *("--config-dir", tmp_path, "--config-name", "tiny", f"common.user_dir={cli.PACKAGE}"),
    )
    succeed(run)
    assert torch.load(last(tmp_path / "student"), weights_only=False)["optimizer_history"][-1]["num_updates"] == 2
