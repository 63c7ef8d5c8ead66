"""Speech translation with a datastore: building it, translating, and training combiners."""

import io
import json
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from fairseq_knn.cli.main import main
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import UserError
from tests import cli, speech, toy, warm

STOCK, KNN = "speech_to_text", "speech_to_text_knn"
TEST, TRAIN = speech.SIZES["test"], speech.SIZES["train"]
COMBINERS = {"kernel_smoothed": (), "adaptive": ("--knn-max-k", 4), "robust": ()}

_TINY = (
    *("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64),
    *("--decoder-embed-dim", 32, "--decoder-ffn-embed-dim", 64, "--encoder-attention-heads", 2),
    *("--decoder-attention-heads", 2),
)
ARCHITECTURES: dict[str, tuple[object, ...]] = {
    "s2t_conformer": (*_TINY, "--conv-channels", 32),
    "convtransformer": (*_TINY, "--conv-out-channels", 8),
    "s2t_berard": (
        *("--input-layers", "[32]", "--conv-layers", "[(8,3,2),(8,3,2)]", "--num-blstm-layers", 1, "--lstm-size", 16),
        *("--decoder-embed-dim", 16, "--decoder-hidden-dim", 32, "--decoder-num-layers", 1, "--attention-dim", 16),
        *("--output-layer-dim", 16),
    ),
}


def generate(data: Path, model: Path, *arguments: object, task: str = KNN) -> cli.Run:
    return cli.generate(data, "--task", task, "--path", model, *arguments)


def building(store: Path, split: str) -> tuple[object, ...]:
    return (
        *("--gen-subset", split, "--score-reference", "--quiet", "--max-tokens", 2000),
        *("--knn-mode", "build_datastore", "--knn-datastore-path", store),
    )


def build(data: Path, model: Path, store: Path, *arguments: object, split: str = "train") -> cli.Run:
    return generate(data, model, *building(store, split), *arguments)


def train_combiner(
    directory: Path, data: Path, model: Path, store: Path, *arguments: object, updates: int = 20
) -> cli.Run:
    training = ("--knn-mode", "train", "--knn-datastore-path", store, "--finetune-from-model", model)
    run = speech.train(directory, data, *training, *arguments, task=KNN, updates=updates)
    assert run.status == 0, run.log[-2000:]
    return run


def measured(run: cli.Run, name: str, subset: str = "valid on 'valid' subset") -> list[float]:
    """A figure of every epoch."""
    return [float(value) for value in re.findall(rf"{subset}\b.*? \| {name} ([-\d.]+)", run.log)]


def assert_zero_weight_is_stock(data: Path, model: Path, store: Path) -> None:
    beam = ("--gen-subset", "test", "--beam", 3)
    stock = generate(data, model, *beam, "--required-batch-size-multiple", 1, task=STOCK)
    ours = generate(data, model, *beam, "--knn-lambda", 0, "--knn-datastore-path", store)
    assert len(stock.lines("H")) == TEST
    assert ours.lines() == stock.lines()
    assert f"{TEST} of {TEST} sentences of 'test' processed" in ours.closing_line


def assert_reproduces(data: Path, model: Path, store: Path, split: str = "train") -> None:
    """Every query's nearest entry is itself."""
    nearest = ("--knn-datastore-path", store, "--knn-lambda", 1, "--knn-k", 1, "--beam", 1)
    run = generate(data, model, "--gen-subset", split, *nearest)
    assert len(run.texts("T")) == speech.SIZES[split]
    assert run.texts("D") == run.texts("T")


@pytest.fixture(scope="module")
def store(speech_data: Path, speech_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "train"
    run = build(speech_data, speech_base, path)
    assert f"{TRAIN} of {TRAIN} sentences of 'train' processed" in run.closing_line
    return path


def test_stock_without_weight(speech_data: Path, speech_base: Path, store: Path) -> None:
    assert_zero_weight_is_stock(speech_data, speech_base, store)


def test_the_references_of_its_own_text(speech_data: Path, speech_base: Path, tmp_path: Path) -> None:
    """Of the test split, of which the model alone gets half wrong."""
    assert generate(speech_data, speech_base, "--gen-subset", "test", "--beam", 1, task=STOCK).bleu < 60
    build(speech_data, speech_base, tmp_path / "test", split="test")
    assert_reproduces(speech_data, speech_base, tmp_path / "test", "test")


def test_entries_are_in_the_order_of_the_manifest(speech_data: Path, speech_base: Path, store: Path) -> None:
    datastore = Datastore.load(store)
    lines = (speech_data / "train.tsv").read_text().splitlines()[1:]
    lengths = [len(line.split("\t")[3].split()) + 1 for line in lines]  # and the end of the sentence
    assert datastore.entries == sum(lengths)
    np.testing.assert_array_equal(datastore.sentences, np.repeat(np.arange(TRAIN), lengths))


def test_shards_of_an_array_and_resumption(speech_data: Path, speech_base: Path, store: Path, tmp_path: Path) -> None:
    def shards(path: Path, *arguments: object) -> cli.Run:
        return build(speech_data, speech_base, path, "--knn-shard-sentences", 16, *arguments)

    whole, array, resumed = tmp_path / "whole", tmp_path / "array", tmp_path / "resumed"
    shards(whole)
    for rank in (1, 0):
        shards(array, "--distributed-world-size", 2, "--distributed-rank", rank)
    assert main(["merge", str(array)]) == 0
    assert toy.content(array) == toy.content(whole)

    shutil.copytree(whole, resumed)
    for file in (resumed / "manifest.json", *resumed.glob("shards/*-00001.*"), *resumed.glob("shards/*-00003.*")):
        file.unlink()
    assert "2 are there already" in shards(resumed).log
    assert toy.content(resumed) == toy.content(whole)
    # Other shards have other batches, and the encoder hears the padding behind a sentence: nearly the same keys.
    one, other = Datastore.load(store), Datastore.load(whole)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.sentences, other.sentences)


def test_nothing_that_is_random_gets_into_a_datastore(
    speech_data: Path, speech_base: Path, store: Path, tmp_path: Path
) -> None:
    """Splits whose names begin with train are distorted for training."""
    (speech_data / "augmented.yaml").write_text(
        "vocab_filename: dict.txt\nfeature_transforms: {_train: [specaugment]}\n"
        "specaugment: {time_mask_N: 2, time_mask_T: 8, time_mask_p: 1.0, freq_mask_N: 2, freq_mask_F: 40}\n"
    )
    build(speech_data, speech_base, tmp_path / "store", "--config-yaml", "augmented.yaml")
    shards = [path / "shards" / "keys-00000.npy" for path in (store, tmp_path / "store")]
    assert shards[0].read_bytes() == shards[1].read_bytes()


def test_several_splits(speech_data: Path, speech_base: Path, tmp_path: Path) -> None:
    """Stock numbers the sentences of each from 0. Here they are those of which the model gets half wrong."""
    header, *valid = (speech_data / "valid.tsv").read_text().splitlines(keepends=True)
    test = (speech_data / "test.tsv").read_text().splitlines(keepends=True)[1:]
    for name, lines in (("train_a", valid), ("train_b", test), ("train_ab", valid + test)):
        (speech_data / f"{name}.tsv").write_text("".join([header, *lines]))
    sentences = len(valid + test)
    # All in one batch, so that both see the same; one neighbour, so that an own entry would be right every time.
    once = ("--batch-size", sentences, "--required-batch-size-multiple", 1)

    def hit(split: str, *arguments: object) -> float:
        """Share of positions whose nearest other entry has the right token."""
        path = tmp_path / split
        run = build(speech_data, speech_base, path, *once, split=split)
        assert f"{sentences} of {sentences} sentences of '{split}' processed" in run.closing_line
        run = train_combiner(
            *(tmp_path / f"{split}_combiner", speech_data, speech_base, path, "--train-subset", split, *once),
            *("--knn-combiner", "kernel_smoothed", "--knn-k", 1, "--disable-validation", *arguments),
            updates=1,
        )
        assert f"'{split}' is what {path} was built from" in run.log
        (figure,) = measured(run, "knn_hit", "epoch 001")
        return figure

    expected = hit("train_ab")
    assert expected < 0.9
    assert hit("train_a,train_b", "--knn-cache", tmp_path / "cache") == pytest.approx(expected, abs=0.02)
    one, other = (Datastore.load(tmp_path / split) for split in ("train_ab", "train_a,train_b"))
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.sentences, other.sentences)
    with pytest.raises(UserError, match="was built from the splits 'train_a,train_b', which 'train_a' has in part"):
        train_combiner(
            *(tmp_path / "part", speech_data, speech_base, tmp_path / "train_a,train_b"),
            *("--train-subset", "train_a", "--knn-combiner", "robust"),
        )


@pytest.mark.parametrize("combiner", COMBINERS)
def test_training_a_combiner(combiner: str, speech_data: Path, speech_base: Path, store: Path, tmp_path: Path) -> None:
    def train(name: str, *arguments: object) -> cli.Run:
        chosen = ("--knn-combiner", combiner, *COMBINERS[combiner])
        return train_combiner(tmp_path / name, speech_data, speech_base, store, *chosen, *arguments)

    run = train("searched")
    assert f"'train' is what {store} was built from: no entry will be its own neighbour" in run.log
    losses = measured(run, "loss")
    assert losses[-1] < losses[0]
    cached = measured(train("cached", "--knn-cache", tmp_path / "cache"), "loss")
    # What is cached comes from other batches, with other padding. Robust kNN-MT draws its noise in another order.
    assert cached == pytest.approx(losses, rel=1e-3 if combiner != "robust" else 0.02)

    checkpoint = tmp_path / "searched" / "checkpoint_best.pt"
    assert checkpoint.stat().st_size < speech_base.stat().st_size / 4
    translated = generate(speech_data, checkpoint, "--gen-subset", "test", "--beam", 3)
    assert f"{TEST} of {TEST} sentences of 'test' processed" in translated.closing_line
    figures = json.loads(translated.closing_line.partition(" | ")[2])
    assert figures["knn_searches"] > 0
    assert 0 < figures["knn_lambda"] < 1
    named = ("--knn-datastore-path", store, "--knn-combiner-path", tmp_path / "searched" / "combiner_best")
    by_directory = generate(speech_data, speech_base, "--gen-subset", "test", "--beam", 3, *named, *COMBINERS[combiner])
    assert by_directory.lines() == translated.lines()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture: str, speech_data: Path, tmp_path: Path) -> None:
    toy.forget_other_trainings()
    run = cli.call(
        "fairseq-train",
        *(speech_data, "--task", STOCK, "--arch", architecture, *ARCHITECTURES[architecture], "--dropout", 0.0),
        *("--save-dir", tmp_path, "--no-epoch-checkpoints", "--disable-validation", "--max-update", 5),
        *("--optimizer", "adam", "--lr", 0.003, "--batch-size", 30, "--num-workers", 0, "--cpu"),
        *("--user-dir", cli.PACKAGE),
    )
    assert run.status == 0, run.log[-2000:]
    model, path = tmp_path / "checkpoint_last.pt", tmp_path / "store"
    build(speech_data, model, path)
    assert_zero_weight_is_stock(speech_data, model, path)
    assert_reproduces(speech_data, model, path)


def test_paths_that_are_typed(speech_data: Path, speech_base: Path, store: Path) -> None:
    paths = [speech_data / "features" / f"test_{number}.npy" for number in range(5)]
    neighbours = ("--knn-datastore-path", store, "--knn-lambda", 0.5, "--beam", 3)

    def typed(*lines: object) -> cli.Run:
        with mock.patch("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines))):
            return cli.call(
                *("fairseq-interactive", speech_data, "--task", KNN, "--path", speech_base, *neighbours),
                *("--buffer-size", 5, "--batch-size", 1, "--user-dir", cli.PACKAGE, "--cpu"),
            )

    run = typed(*paths)
    assert "5 sentences processed" in run.closing_line
    expected = generate(speech_data, speech_base, "--gen-subset", "test", *neighbours, "--batch-size", 1).texts()
    assert run.texts() == {number: expected[number] for number in range(5)}
    with pytest.raises(UserError, match=r"the audio file .*/none\.npy does not exist: give one path in a line"):
        typed(speech_data / "none.npy")


def test_validation(speech_data: Path, speech_base: Path, store: Path) -> None:
    def loss(task: str, *arguments: object) -> float:
        run = cli.call(
            *("fairseq-validate", speech_data, "--task", task, "--path", speech_base, "--valid-subset", "train"),
            *("--batch-size", TRAIN, "--user-dir", cli.PACKAGE, "--cpu", "--num-workers", 0, "--log-format", "json"),
            *("--required-batch-size-multiple", 1, *arguments),
        )
        (found,) = re.findall(r'{.*"train_nll_loss": .*}', run.output)
        return float(json.loads(found)["train_nll_loss"])

    alone = loss(STOCK)
    assert loss(KNN) == alone
    neighbours = ("--knn-datastore-path", store, "--knn-k", 1, "--knn-lambda")
    assert loss(KNN, *neighbours, 0) == alone
    assert loss(KNN, *neighbours, 0.9) < min(0.2, alone)  # bit: own entries


def test_tuning(speech_data: Path, speech_base: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--user-dir", cli.PACKAGE, "--task", KNN, "--path", speech_base, "--knn-datastore-path", store)
    grid = ("--ks", 4, 8, "--lambdas", 0.2, 0.4, "--temperatures", 1, 10, "--max-tokens", 2000, "--cpu")
    assert main(list(map(str, ("tune", speech_data, *arguments, "--gen-subset", "valid", *grid)))) == 0
    assert re.search(r"best: --knn-k \d+ --knn-lambda 0\.\d+ --knn-temperature \d+", capsys.readouterr().out)


def test_sound_and_archives(speech_data: Path, speech_base: Path, store: Path, tmp_path: Path) -> None:
    """Features in an archive are those of the files, and audio is read, too."""
    soundfile = pytest.importorskip("soundfile")
    for name in ("dict.txt", "config.yaml"):
        shutil.copy(speech_data / name, tmp_path)
    header, *lines = (speech_data / "train.tsv").read_text().splitlines()
    columns = header.split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines]
    archive = tmp_path / "features.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for row in rows:
            packed.write(row["audio"], row["id"])
        packed_rows = [
            {**row, "audio": f"{archive}:{entry.header_offset + 30 + len(entry.filename)}:{entry.file_size}"}
            for row in rows
            for entry in [packed.getinfo(row["id"])]
        ]
    speech.write_manifest(tmp_path, "train", packed_rows)
    build(tmp_path, speech_base, tmp_path / "packed")
    assert toy.content(tmp_path / "packed") == toy.content(store)

    chance = np.random.default_rng(1)
    sounds = []
    for row in rows[:4]:
        sounds.append({**row, "audio": tmp_path / f"{row['id']}.wav"})
        sound = chance.standard_normal((400 + 160 * (int(row["n_frames"]) - 1), 2))  # stereo
        soundfile.write(sounds[-1]["audio"], 0.1 * sound, 16000)
    speech.write_manifest(tmp_path, "train_sound", sounds)
    run = build(tmp_path, speech_base, tmp_path / "sound", split="train_sound")
    assert "4 of 4 sentences of 'train_sound' processed" in run.closing_line


HYDRA = """
common: {cpu: true, seed: 3}
task: {_name: speech_to_text_knn, data: "???", config_yaml: config.yaml, max_source_positions: 500}
model:
  _name: s2t_transformer
  encoder_layers: 1
  decoder_layers: 1
  encoder_embed_dim: 32
  decoder_embed_dim: 32
  encoder_attention_heads: 2
  decoder_attention_heads: 2
  conv_channels: 32
  max_source_positions: 500
  max_target_positions: 1024
criterion: {_name: label_smoothed_cross_entropy, label_smoothing: 0.1}
optimizer: {_name: adam}
lr_scheduler: {_name: fixed}
optimization: {lr: [0.003], max_update: 2}
dataset: {batch_size: 30, num_workers: 0, train_subset: train, valid_subset: valid}
checkpoint: {save_dir: base, no_epoch_checkpoints: true}
hydra: {job: {chdir: false}, run: {dir: "${checkpoint.save_dir}"}}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stock programs that start at once."""
    folder = tmp_path_factory.mktemp("programs")
    with warm.programs(folder):
        yield folder


def test_hydra(programs: Path, speech_data: Path, tmp_path: Path) -> None:
    """It trains a model, and a combiner on that."""
    (tmp_path / "tiny.yaml").write_text(HYDRA)

    def train(*settings: str) -> None:
        run = cli.run(
            *("python", programs / "fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "tiny"),
            *(f"common.user_dir={cli.PACKAGE}", f"task.data={speech_data}", *settings),
            directory=tmp_path,
        )
        assert run.status == 0, run.log[-2000:]

    train()
    model, path = tmp_path / "base" / "checkpoint_last.pt", tmp_path / "store"
    build(speech_data, model, path)
    assert_zero_weight_is_stock(speech_data, model, path)
    combiner = ("+task.knn_mode=train", "+task.knn_combiner=adaptive", f"+task.knn_datastore_path={path}")
    train(*combiner, f"+checkpoint.finetune_from_model={model}", "checkpoint.save_dir=combiner")
    run = generate(speech_data, tmp_path / "combiner" / "checkpoint_best.pt", "--gen-subset", "test")
    assert f"{TEST} of {TEST} sentences of 'test' processed" in run.closing_line


def test_the_commands_of_the_knn_mt_page(programs: Path, speech_data: Path, speech_base: Path, tmp_path: Path) -> None:
    page = (cli.ROOT / "docs" / "knn-mt.md").read_text(encoding="utf-8").partition("## Speech translation")[2]
    (commands,) = re.findall(r"```bash\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    commands = commands.replace(" DATA ", f" {speech_data} ").replace("ST.pt", str(speech_base))
    script = tmp_path / "commands.sh"
    script.write_text(f"set -e\nPATH={programs}:{cli.scripts()}:$PATH\n{commands}", encoding="utf-8")
    environment = {"PYTHONPATH": str(cli.ROOT), "CUDA_VISIBLE_DEVICES": ""}
    run = cli.run("bash", script, environment=environment, directory=tmp_path)
    assert run.status == 0, run.log[-2000:]
    assert run.output.count("Generate test with beam=5: BLEU4 = ") == 2
    assert (tmp_path / "KSTER" / "combiner_best").is_dir()


def in_generate(data: Path, model: Path, store: Path, arguments: Sequence[object]) -> None:
    generate(data, model, "--knn-datastore-path", store, "--gen-subset", "test", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config-yaml", "none.yaml"), r"none\.yaml does not exist: name the configuration"),
        (("--gen-subset", "none"), r"none\.tsv does not exist: choose among the splits that DATA has"),
        (("--gen-subset", "lost"), r"1 of 1 audio files of .*lost\.tsv do not exist \(the first: /lost\.npy\)"),
        (("--train-subset", "dev"), r"--train-subset names 'dev'"),
        (("--config-yaml", "spm.yaml"), r"none\.model.*: correct pre_tokenizer and bpe_tokenizer of .*spm\.yaml"),
        (("--config-yaml", "tag.yaml"), r"end with the tag of their language .*: name it with --eos-token|--prefix"),
        (("--max-source-positions", 20), r"sentences are longer than the \(20, .*\) frames and tokens the model takes"),
        (
            ("--max-source-positions", 1, "--skip-invalid-size-inputs-valid-test"),
            r"all 13 sentences of 'test' are longer than the \(1, .*\) frames and tokens",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_a_user_can_mend(
    arguments: tuple[object, ...], message: str, speech_data: Path, speech_base: Path, store: Path
) -> None:
    columns = "\t".join(speech.COLUMNS)
    (speech_data / "lost.tsv").write_text(f"{columns}\n1\t/lost.npy\t8\tt1\tx\ts1\n")
    (speech_data / "spm.yaml").write_text("bpe_tokenizer: {bpe: sentencepiece, sentencepiece_model: none.model}\n")
    (speech_data / "tag.yaml").write_text("prepend_bos_and_append_tgt_lang_tag: true\n")
    with pytest.raises(UserError, match=message) as raised:
        in_generate(speech_data, speech_base, store, arguments)
    assert "\n" not in str(raised.value)


def test_other_decoders_are_not_trained_along(
    speech_data: Path, speech_base: Path, store: Path, tmp_path: Path
) -> None:
    (speech_data / "multitask.yaml").write_text(
        f"other: {{decoder_type: transformer, dict: {speech_data}/dict.txt, data: {speech_data}}}\n"
    )
    with pytest.raises(UserError, match="--multitask-config-yaml trains further decoders"):
        train_combiner(
            *(tmp_path, speech_data, speech_base, store, "--multitask-config-yaml", "multitask.yaml"),
            *("--knn-combiner", "adaptive"),
        )
