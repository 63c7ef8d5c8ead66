"""Training the translation model of a cascade by stock fairseq-train, and decoding it with stock's programs."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task
from fairseq.data import Dictionary

from fairseq_knn.criterions.imitation_kd import ImitationCriterion
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.imitation_task import ExpertSource
from fairseq_knn.tasks.imitation.speech_recognition import SpeechRecognition
from fairseq_knn.tasks.translation_imitkd import TranslationImitkdConfig, TranslationImitkdTask
from tests import cascade, cli, imitation, speech, toy


@dataclass(frozen=True)
class Cascade:
    world: speech.World
    expert: Path  # reads gold transcripts
    recognition: Path  # checkpoint
    text: Path  # binarised

    @property
    def student(self) -> tuple[object, ...]:
        return cascade.arguments(self.world, self.expert)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    folder = tmp_path_factory.mktemp("cascade")
    world = speech.write(folder / "data")
    cascade.write_config(world)
    text = imitation.write_text(folder / "text", world)
    imitation.write_text(text, world, "test")
    expert = imitation.train_expert(folder / "expert", text, updates=60)
    recognition = speech.trained(folder / "asr", cascade.write_recognition(folder / "asr-data", world), updates=60)
    return Cascade(world, expert, recognition, text)


@pytest.fixture(scope="module")
def trained(made: Cascade, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cli.Run, list[dict[str, Any]]]:
    """A student of transcribed speech; the run, and the batches it was trained on."""
    directory = tmp_path_factory.mktemp("student")
    seen: list[dict[str, Any]] = []
    forward = ImitationCriterion.forward

    def spy(self: Any, model: Any, sample: Any, reduce: bool = True) -> Any:
        if model.training:
            seen.append(sample)
        return forward(self, model, sample, reduce)

    with mock.patch.object(ImitationCriterion, "forward", spy):
        run = cascade.train(directory, *made.student, "--asr-model", made.recognition, "--beta-base", 5)
    assert run.status == 0, run.log[-3000:]
    return directory, run, seen


def _task_state(directory: Path) -> Any:
    return torch.load(directory / "checkpoint_last.pt", weights_only=False)["task_state"]


def _heard(directory: Path, split: str) -> list[str]:
    (file,) = directory.glob(f"{split}.asr-*.tsv")
    return [line.split("\t")[1] for line in file.read_text().splitlines()[1:]]


def test_student_reads_what_is_heard_and_expert_what_is_said(
    made: Cascade, trained: tuple[Path, cli.Run, list[dict[str, Any]]]
) -> None:
    directory, run, seen = trained
    dictionary = Dictionary.load(str(made.world.data / "dict.src.txt"))
    target = Dictionary.load(str(made.world.data / "dict.txt"))
    heard, said = _heard(directory, "train"), made.world.utterances["train"]
    assert 0 < sum(text == each.source for text, each in zip(heard, said, strict=True)) < len(said)  # it errs
    sentences = set()
    for sample in seen:

        def text(tokens: torch.Tensor) -> str:
            return " ".join(symbol for symbol in dictionary.string(tokens).split() if symbol != "<pad>")

        for row, number in enumerate(sample["sentence"].tolist()):
            assert text(sample["net_input"]["src_tokens"][row]) == heard[number]
            assert text(sample["expert_input"]["src_tokens"][row]) == said[number].source
            assert target.string(sample["target"][row]).replace(" <pad>", "") == said[number].target
            sentences.add(number)
    assert sentences == set(range(60))
    assert all(set(sample["net_input"]) == {"src_tokens", "src_lengths", "prev_output_tokens"} for sample in seen)
    losses = [float(loss) for loss in re.findall(r"^epoch \d+ \| loss (\S+)", run.log, re.MULTILINE)]
    assert losses[-1] < losses[0]
    assert "train.tsv: the student reads what --asr-model hears" in run.log


def test_hears_as_fairseq_generate_does(made: Cascade, trained: tuple[Path, cli.Run, list[dict[str, Any]]]) -> None:
    directory, _, _ = trained
    stock = cli.generate(
        *(made.recognition.parent.parent / "asr-data", "--task", "speech_to_text", "--path", made.recognition),
        *("--gen-subset", "train", "--beam", 1, "--max-tokens", 40000, "--required-batch-size-multiple", 1),
    )
    texts = stock.texts("D")
    assert _heard(directory, "train") == [texts[number] for number in range(60)]


def test_is_heard_once_and_training_resumes_exactly(
    made: Cascade, trained: tuple[Path, cli.Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    directory, _, _ = trained
    chosen = (*made.student, "--asr-model", made.recognition, "--asr-cache", directory, "--beta-base", 5)
    with mock.patch.object(SpeechRecognition, "transcripts", side_effect=AssertionError):
        whole = cascade.train(tmp_path / "whole", *chosen, "--save-interval-updates", 3)
        assert whole.status == 0, whole.log[-2000:]
        assert "train.tsv was transcribed before" in whole.log
        (tmp_path / "half").mkdir()
        (third,) = (tmp_path / "whole").glob("checkpoint_*_3.pt")
        shutil.copy(third, tmp_path / "half" / "checkpoint_last.pt")
        resumed = cascade.train(tmp_path / "half", *chosen, "--num-workers", 2)
    assert "Loaded checkpoint" in resumed.log
    expected = imitation.parameters(directory / "checkpoint_last.pt")
    for other in ("whole", "half"):
        assert _task_state(tmp_path / other) == {"student_reads_speech_recognition": True}
        found = imitation.parameters(tmp_path / other / "checkpoint_last.pt")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_resumed_training_is_not_given_gold_transcripts_in_silence(
    made: Cascade, trained: tuple[Path, cli.Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    shutil.copy(trained[0] / "checkpoint_last.pt", tmp_path)
    with pytest.raises(ConfigurationError, match=r"read transcripts of speech recognition, .* --asr-model"):
        cascade.train(tmp_path, *made.student, "--beta-base", 5, updates=12)


def test_other_yaml_or_dictionary_is_another_model(made: Cascade, tmp_path: Path) -> None:
    """The checkpoint is the same, but not what it hears."""
    stored = made.recognition.parent.parent / "asr-data"
    right = SpeechRecognition(str(made.recognition), None).digest
    copy = tmp_path / "copy"
    shutil.copytree(stored, copy)
    assert SpeechRecognition(str(made.recognition), str(copy)).digest == right
    seen = {right}
    for name in (speech.CONFIG, "dict.txt"):
        file = copy / name
        whole = file.read_text()
        file.write_text(whole + ("use_sample_rate: 8000\n" if name == speech.CONFIG else "new 1\n"))
        seen.add(SpeechRecognition(str(made.recognition), str(copy)).digest)
        file.unlink()
        with pytest.raises(ConfigurationError, match=r"there is no .*copy.*--asr-data"):
            _ = SpeechRecognition(str(made.recognition), str(copy)).digest
        file.write_text(whole)
    assert len(seen) == 3


def test_interrupted_transcription_goes_on(made: Cascade, tmp_path: Path) -> None:
    stock = SpeechRecognition.transcripts
    batches: list[list[int]] = []

    def interrupted(self: Any, *args: Any) -> Any:
        for batch in stock(self, *args):
            if len(batches) == 2:
                raise KeyboardInterrupt
            batches.append(list(batch))
            yield batch

    arguments = (
        *(made.world.data, "--task", "translation_imitkd", "--config-yaml", cascade.CONFIG, "--gen-subset", "test"),
        *("--path", made.expert, "--asr-model", made.recognition, "--asr-max-tokens", 100, "--asr-cache", tmp_path),
    )
    with mock.patch.object(SpeechRecognition, "transcripts", interrupted), pytest.raises(KeyboardInterrupt):
        cli.generate(*arguments)
    done = {number for batch in batches for number in batch}
    (unfinished,) = tmp_path.glob(".*.unfinished")
    whole = unfinished.read_bytes()
    unfinished.write_bytes(whole + b'[5, "s1')  # the power failed here
    batches = [[]]  # never two
    batches *= 3
    with mock.patch.object(SpeechRecognition, "transcripts", interrupted):
        resumed = cli.generate(*arguments)
    assert resumed.status == 0, resumed.log[-2000:]
    assert sorted(number for batch in batches for number in batch) == sorted(set(range(13)) - done)
    assert not unfinished.exists()
    assert resumed.texts("S") == dict(enumerate(_heard(tmp_path, "test")))  # all sentences, 13 of them


def test_stock_decodes_the_student(
    made: Cascade, trained: tuple[Path, cli.Run, list[dict[str, Any]]], tmp_path: Path
) -> None:
    directory, _, _ = trained
    path = directory / "checkpoint_best.pt"
    rows = [
        {"id": each.name, "tgt_text": each.target, "asr_text": each.source} for each in made.world.utterances["test"]
    ]
    cascade.columns(made.world.data, "gold", rows)
    with pytest.raises(ConfigurationError, match=r"no column asr_text and --asr-model is not given, but the model was"):
        cli.generate(
            *(made.world.data, "--task", "translation_imitkd", "--config-yaml", cascade.CONFIG, "--path", path),
            *("--gen-subset", "test"),
        )
    _, _, restored = load_model_ensemble_and_task([str(path)])  # as fairseq-validate does
    restored.load_dataset("valid")
    own = cli.generate(
        *(made.world.data, "--task", "translation_imitkd", "--config-yaml", cascade.CONFIG, "--path", path),
        *("--gen-subset", "gold", "--beam", 2),
    )
    assert own.status == 0, own.log[-2000:]
    stock = cli.run_stock_generate(
        *(made.text, "--task", "translation", "--path", path, "--gen-subset", "test", "--beam", 2, "--num-workers", 0),
        *("-s", "src", "-t", "tgt", "--required-batch-size-multiple", 1),
    )
    assert stock.status == 0, stock.log[-2000:]
    assert len(own.hypotheses()) == 13
    assert len(stock.hypotheses()) == 13
    toy.assert_scores_close(own, stock, sentences=13)
    sources = "".join(f"{row['asr_text']}\n" for row in rows)
    (tmp_path / "input").write_text(sources)
    interactive = cli.call(
        "fairseq-interactive",
        *(made.world.data, "--task", "translation_imitkd", "--config-yaml", cascade.CONFIG, "--path", path),
        *("--input", tmp_path / "input", "--beam", 2, "--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert interactive.texts("D") == own.texts("D")


@pytest.fixture(scope="module")
def texts(made: Cascade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data without audio, in two manifests."""
    data = tmp_path_factory.mktemp("texts")
    for name in ("dict.txt", "dict.src.txt", cascade.CONFIG):
        shutil.copy(made.world.data / name, data)
    train = made.world.utterances["train"]
    for split, part in (("train", train[:31]), ("train2", train[31:]), ("valid", made.world.utterances["valid"])):
        cascade.columns(data, split, [{"id": u.name, "src_text": u.source, "tgt_text": u.target} for u in part])
    return data


def test_without_speech_the_student_reads_what_the_expert_reads(made: Cascade, texts: Path, tmp_path: Path) -> None:
    """Neither pooled roll-outs nor the expert's cache change what is learned."""
    chosen = (
        *cascade.arguments(speech.World(texts, {}), made.expert, "imit_kd"),
        *("--train-subset", "train,train2", "--beta-base", 5, "--update-freq", 2, "--batch-size", 15),
    )
    more = {"plain": (), "pooled": ("--kd-pool", 2), "cached": ("--kd-cache", tmp_path / "cache")}
    for name, flags in more.items():
        run = cascade.train(tmp_path / name, *chosen, *flags, updates=4)
        assert run.status == 0, run.log[-2000:]
        assert "train2.tsv: the student reads the column src_text, as the expert does" in run.log
        assert _task_state(tmp_path / name) == {}
    plain, *others = (imitation.parameters(tmp_path / name / "checkpoint_last.pt") for name in more)
    for other in others:
        assert all(torch.allclose(plain[name], value, atol=1e-4) for name, value in other.items())


def test_what_is_too_long_for_the_expert_is_told_before_training(made: Cascade, texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts, tmp_path / "data")
    long = {"id": "endless", "src_text": "s1 " * 1100, "tgt_text": "t1"}
    cascade.columns(tmp_path / "data", "train_long", [long])
    chosen = (*cascade.arguments(speech.World(tmp_path / "data", {}), made.expert), "--train-subset", "train_long")
    with pytest.raises(ConfigurationError, match=r"1 transcripts of train_long.* than the 1,024 .*endless"):
        cascade.train(tmp_path / "student", *chosen)


def test_stock_criterions_train_it_too(texts: Path, tmp_path: Path) -> None:
    run = cascade.train(
        *(tmp_path, texts, "--task", "translation_imitkd", "--config-yaml", cascade.CONFIG),
        *("--criterion", "label_smoothed_cross_entropy", "--eval-bleu"),
        updates=2,
    )
    assert run.status == 0, run.log[-2000:]
    assert re.search(r"valid on 'valid' subset .* bleu ", run.log)


def _task(made: Cascade, cache: Path, **settings: Any) -> TranslationImitkdTask:
    """The task with an expert that reads gold transcripts."""
    given = {"data": str(made.world.data), "config_yaml": cascade.CONFIG, "asr_cache": str(cache), **settings}
    if "asr_model" not in given and "asr_cache" not in settings:
        given["asr_cache"] = None
    config = TranslationImitkdConfig(save_dir=str(cache), num_workers=0, cpu=True, required_seq_len_multiple=1)
    for name, value in given.items():
        setattr(config, name, value)
    task = TranslationImitkdTask.setup_task(config)
    path = made.world.data / "dict.src.txt"
    task._expert_source = ExpertSource(Dictionary.load(str(path)), path)
    return task


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"asr_model": "nowhere.pt"}, "--asr-model nowhere.pt does not exist"),
        ({"asr_model": "EXPERT"}, "was trained with --task translation, but transcripts are made by"),
        ({"asr_model": "DAMAGED"}, "cannot be read as a checkpoint of fairseq"),
        ({"asr_model": "ASR", "asr_data": "nowhere"}, "there is no nowhere/config.yaml"),
        ({"asr_model": "ASR", "asr_data": "DATA"}, "are not in"),  # a dictionary of its size, of translations
        ({"asr_cache": "somewhere"}, "--asr-cache is about --asr-model, which is missing"),
        ({"config_yaml": "none.yaml"}, "none.yaml does not exist"),
        ({"config_yaml": "config.yaml"}, "there is no dictionary"),
        ({"config_yaml": "valid.tsv"}, "is no YAML"),
        ({"truncate_source": True}, "--truncate-source is not available"),
    ],
)
def test_mistakes_of_settings_are_told(made: Cascade, tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(b"nothing")
    places = {"EXPERT": made.expert, "ASR": made.recognition, "DATA": made.world.data, "DAMAGED": damaged}
    given = {name: str(places.get(value, value)) for name, value in settings.items()}
    if "truncate_source" in given:
        given = settings
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        _task(made, tmp_path, **given).load_dataset("valid")


@pytest.mark.parametrize(
    ("column", "value", "asr", "complaint"),
    [
        ("src_text", None, False, "has no column src_text"),
        ("tgt_text", None, False, "has no column tgt_text"),
        ("audio", None, True, "has no column audio"),
        ("audio", "nowhere.npy", True, "does not exist (ids valid_2; nowhere.npy)"),
        ("audio", "DAMAGED", True, "cannot be read"),
        ("n_frames", "many", True, "'many', which is no number"),
        ("n_frames", "6001", True, "have more frames than --asr-model"),
        ("src_text", " ", False, "column src_text of bad.tsv is blank in 1 of 12 lines (ids valid_2)"),
        ("tgt_text", "", False, "column tgt_text of bad.tsv is blank in 1 of 12 lines (ids valid_2)"),
        ("tgt_text", "a\tb", False, "line 4 of"),
        ("asr_text", "s1", True, "has the column asr_text, but --asr-model is to make its content"),
    ],
)
def test_mistakes_of_manifests_are_told(
    made: Cascade, tmp_path: Path, column: str, value: str | None, asr: bool, complaint: str
) -> None:
    damaged = tmp_path / "damaged.npy"
    damaged.write_bytes(b"no numbers")
    names, *lines = [line.split("\t") for line in (made.world.data / "valid.tsv").read_text().splitlines()]
    rows: list[dict[str, object]] = [dict(zip(names, line, strict=True)) for line in lines]
    for number, row in enumerate(rows):
        if value is None:
            del row[column]
        elif number == 2 or column not in row:
            row[column] = damaged if value == "DAMAGED" else value
    cascade.columns(made.world.data, "bad", rows)
    settings = {"asr_model": str(made.recognition), "num_workers": 2 if value == "DAMAGED" else 0} if asr else {}
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        _task(made, tmp_path, **settings).load_dataset("bad")


def test_other_settings_of_a_training(made: Cascade, tmp_path: Path) -> None:
    """What only a criterion of imitation cannot do is told by fairseq-train."""
    with pytest.raises(ConfigurationError, match="leave --left-pad-target out"):
        cascade.train(tmp_path, *made.student, "--left-pad-target")
    with pytest.raises(ConfigurationError, match="which the batches of this task do not have"):
        cascade.train(tmp_path, *cascade.arguments(made.world, made.recognition, "imit_kd_ast"))
