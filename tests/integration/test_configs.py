"""Every configuration file trains under the real fairseq-hydra-train."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from fairseq_knn.combiners import COMBINERS
from tests import cli, toy

CONFIGS = sorted((cli.ROOT / "configs").rglob("*.yaml"))

# Two updates on the CPU.
TINY = (
    *("common.cpu=true", "common.fp16=false", "optimization.max_update=2", "optimization.update_freq=[1]"),
    *("dataset.num_workers=0", "dataset.max_tokens=500"),
)
# What the toy base is. Combiners take the dimensions from its checkpoint.
MODEL = (
    *(f"+model.{side}_layers=2" for side in ("encoder", "decoder")),
    *(f"+model.{side}_embed_dim=64" for side in ("encoder", "decoder")),
    *(f"+model.{side}_ffn_embed_dim=128" for side in ("encoder", "decoder")),
    *(f"+model.{side}_attention_heads=2" for side in ("encoder", "decoder")),
    "+model.share_decoder_input_output_embed=false",
)
# A language model of the same size; its adaptive softmax has bands of a few words.
LANGUAGE_MODEL = (
    *("++model.decoder_layers=2", "++model.decoder_attention_heads=2", "++model.decoder_ffn_embed_dim=128"),
    *(f"++model.decoder_{side}_dim=64" for side in ("embed", "input", "output")),
    "++task.tokens_per_sample=64",
)
BANDS = tuple(f"++model.adaptive_{side}_cutoff='20,60'" for side in ("input", "softmax"))


def name(path: Path) -> str:
    return str(path.relative_to(cli.ROOT / "configs"))


def required(path: Path) -> list[str]:
    """Keys that the file leaves to the user."""
    config = OmegaConf.to_container(OmegaConf.load(path))
    marks = ("???", "${???")
    return [f"{g}.{key}" for g, group in config.items() for key, value in group.items() if str(value).startswith(marks)]


def trains_combiner(path: Path) -> bool:
    return "knn_combiner" in OmegaConf.load(path).task


def is_language_model(path: Path) -> bool:
    return OmegaConf.load(path).task._name == "language_modeling"


def sizes(path: Path) -> tuple[str, ...]:
    """Of a model like the base."""
    if trains_combiner(path):
        return ()
    if is_language_model(path):
        return (*LANGUAGE_MODEL, *(BANDS if "adaptive_input_cutoff" in OmegaConf.load(path).model else ()))
    return MODEL


def test_there_are_configurations() -> None:
    assert {OmegaConf.load(path).task.get("knn_combiner", "vanilla") for path in CONFIGS} == set(COMBINERS)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The English side of the toy domain as a language model reads it."""
    folder = tmp_path_factory.mktemp("text")
    shutil.copy(toy.DOMAIN / "dict.en.txt", folder / "dict.txt")
    for split in ("train", "valid"):
        for kind in ("bin", "idx"):
            shutil.copy(toy.DOMAIN / f"{split}.de-en.en.{kind}", folder / f"{split}.{kind}")
    return folder


@pytest.fixture(scope="module")
def language_model(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that can be fine-tuned."""
    directory = tmp_path_factory.mktemp("language_model")
    run = cli.call(
        "fairseq-train",
        *(text, "--task", "language_modeling", "--arch", "transformer_lm", "--save-dir", directory, "--cpu"),
        *("--decoder-layers", 2, "--decoder-attention-heads", 2, "--decoder-ffn-embed-dim", 128),
        *("--decoder-embed-dim", 64, "--decoder-input-dim", 64, "--decoder-output-dim", 64),
        *("--tokens-per-sample", 64, "--max-tokens", 500, "--max-update", 1, "--optimizer", "adam", "--lr", 0.001),
        *("--no-epoch-checkpoints", "--disable-validation", "--num-workers", 0),
    )
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def trained(
    datastore: Path, text: Path, language_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Path, tuple[Path, cli.Run]]:
    """Of every file: where it was trained, and how that ended. Two at a time: starting takes longest."""

    def train(path: Path, directory: Path) -> cli.Run:
        given = {
            "common.user_dir": cli.PACKAGE,
            "task.data": text if is_language_model(path) else toy.DOMAIN,
            "task.knn_datastore_path": datastore,
            "checkpoint.save_dir": "checkpoints",
            "checkpoint.finetune_from_model": language_model if is_language_model(path) else toy.BASE,
        }
        return cli.run(
            "fairseq-hydra-train",
            *("--config-dir", path.parent, "--config-name", path.stem),
            *(f"{key}={given[key]}" for key in required(path)),
            *TINY,
            *sizes(path),
            directory=directory,
        )

    directories = [tmp_path_factory.mktemp(path.stem) for path in CONFIGS]
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(train, CONFIGS, directories)
    return dict(zip(CONFIGS, zip(directories, runs, strict=True), strict=True))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_two_updates(path: Path, trained: dict[Path, tuple[Path, cli.Run]], language_model: Path) -> None:
    directory, run = trained[path]
    assert run.status == 0, run.log[-2000:]
    assert (directory / "checkpoints" / "checkpoint_last.pt").exists()
    assert [entry.name for entry in directory.iterdir()] == ["checkpoints"]  # nothing is left anywhere else
    log = (directory / "checkpoints" / "hydra_train.log").read_text()
    assert "num_updates 2" in log
    if "checkpoint.finetune_from_model" in required(path):
        base = language_model if is_language_model(path) else toy.BASE
        assert f"loading pretrained model from {base}" in log
    if trains_combiner(path):
        assert "'valid' is cached" in log
        alone = toy.generate_with(directory / "checkpoints" / "checkpoint_best.pt")
        assert f'"knn_k": {OmegaConf.load(path).task.get("knn_k", 8)}' in alone.closing_line


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_what_is_missing_is_named(path: Path) -> None:
    """A bare ``???`` gives way to fairseq's defaults in silence, so only ``user_dir`` has it: nothing runs without."""
    assert {"common.user_dir", "task.data", "checkpoint.save_dir"} <= set(required(path))
    assert OmegaConf.load(path).common.get("user_dir", None) is None
    for key in required(path)[1:]:
        config = OmegaConf.load(path)
        for other in required(path):
            if other != key:
                OmegaConf.update(config, other, "given")
        with pytest.raises(InterpolationKeyError, match=key.replace(".", r"\.")):
            OmegaConf.to_container(config, resolve=True)
        assert f"{key}=" in path.read_text()  # the command at its head shows how it is given
