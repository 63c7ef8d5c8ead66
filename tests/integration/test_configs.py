"""Every configuration file trains under the real fairseq-hydra-train; those of speech: test_imit_kd_configs."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from fairseq_knn.combiners import COMBINERS
from tests import cli, languages, toy, warm

# Recipes are of another kind: test_recipe_job_scripts.
ALL = [path for path in sorted((cli.ROOT / "configs").glob("*/*.yaml")) if path.parent.name != "recipe"]
CONFIGS = [path for path in ALL if path.parent.name != "imit_kd"]  # those have a test of their own
TED = cli.ROOT / "configs" / "multi_dds" / "ted8.yaml"

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
    "++model.share_decoder_input_output_embed=false",
)
# A language model of the same size; its adaptive softmax has bands of a few words.
LANGUAGE_MODEL = (
    *("++model.decoder_layers=2", "++model.decoder_attention_heads=2", "++model.decoder_ffn_embed_dim=128"),
    *(f"++model.decoder_{side}_dim=64" for side in ("embed", "input", "output")),
    "++task.tokens_per_sample=64",
)
BANDS = tuple(f"++model.adaptive_{side}_cutoff='20,60'" for side in ("input", "softmax"))


# Each file of the folders that ted8.yaml chooses from; first its own choice.
CHOICES = (
    ("multidds_s", "related_m2o"),
    ("multidds", "diverse_o2m"),
    ("proportional", "related_o2m"),
    ("temperature", "diverse_m2o"),
    ("uniform", "diverse_o2m"),
)
# Of toy data with as many sentences as the place in the group says, times eight.
RELATED = ("aze", "tur", "bel", "rus", "glg", "por", "slk", "ces")
DIVERSE = ("bos", "mar", "hin", "mkd", "ell", "bul", "fra", "kor")
SENTENCES = {name: 8 * number for group in (RELATED, DIVERSE) for number, name in enumerate(group, 1)}


def name(path: Path) -> str:
    return str(path.relative_to(cli.ROOT / "configs"))


def required(path: Path) -> list[str]:
    """Keys that the file leaves to the user."""
    config = OmegaConf.to_container(OmegaConf.load(path))
    marks = ("???", "${???")
    groups = {name: group for name, group in config.items() if name != "defaults"}  # which files it includes
    return [f"{g}.{key}" for g, group in groups.items() for key, value in group.items() if str(value).startswith(marks)]


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
def hydra_train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program."""
    folder = tmp_path_factory.mktemp("programs")
    with warm.programs(folder):
        yield folder / "fairseq-hydra-train"


@pytest.fixture(scope="module")
def ted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data of sixteen languages."""
    return languages.write(tmp_path_factory.mktemp("ted"), SENTENCES, valid=4)


def run(program: Path, path: Path, directory: Path, settings: Sequence[object]) -> cli.Run:
    """Train with a configuration."""
    command = [program, "--config-dir", path.parent, "--config-name", path.stem, *map(str, settings)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    return cli.Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def trained(
    hydra_train: Path,
    datastore: Path,
    text: Path,
    language_model: Path,
    ted: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Path, tuple[Path, cli.Run]]:
    """Of every file: where it was trained, and how that ended."""

    def train(path: Path, directory: Path) -> cli.Run:
        texts = {"language_modeling": text, "translation_multi_dds": ted}
        given = {
            "common.user_dir": cli.PACKAGE,
            "task.data": texts.get(OmegaConf.load(path).task._name, toy.DOMAIN),
            "task.knn_datastore_path": datastore,
            "checkpoint.save_dir": "checkpoints",
            "checkpoint.finetune_from_model": language_model if is_language_model(path) else toy.BASE,
        }
        settings = (*(f"{key}={given[key]}" for key in required(path)), *TINY, *sizes(path))
        return run(hydra_train, path, directory, settings)

    directories = {path: tmp_path_factory.mktemp(path.stem) for path in CONFIGS}
    return {path: (directory, train(path, directory)) for path, directory in directories.items()}


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


def test_choices() -> None:
    for number, folder in enumerate(("sampling", "languages")):
        chosen = {choice[number] for choice in CHOICES}
        assert chosen == {path.stem for path in (TED.parent / folder).iterdir()}
        assert {folder: CHOICES[0][number]} in OmegaConf.load(TED).defaults


@pytest.mark.parametrize(("sampling", "group"), CHOICES)
def test_sampling_and_languages(sampling: str, group: str, hydra_train: Path, ted: Path, tmp_path: Path) -> None:
    """What is chosen is what trains; an actor gets its turn."""
    settings = [f"common.user_dir={cli.PACKAGE}", f"task.data={ted}", "checkpoint.save_dir=checkpoints", *TINY, *MODEL]
    learned = sampling.startswith("multidds")
    settings += [
        f"sampling={sampling}",
        f"languages={group}",
        *(["task.update_language_sampling=2"] if learned else []),
    ]
    done = run(hydra_train, TED, tmp_path, settings)
    assert done.status == 0, done.log[-2000:]
    log = (tmp_path / "checkpoints" / "hydra_train.log").read_text()
    to_english, names = group.endswith("m2o"), RELATED if group.startswith("related") else DIVERSE
    (shown,) = re.findall(r"drawn with the probabilities (.*)", log)
    pairs, probabilities = zip(*(part.split() for part in shown.split(", ")), strict=True)
    assert ",".join(pairs) == languages.pairs(names, to_english)
    power = {"temperature": 1 / 5, "uniform": 0}.get(sampling, 1)
    expected = np.array([SENTENCES[language] for language in names]) ** power
    np.testing.assert_allclose(np.array(probabilities, float), expected / expected.sum(), atol=1e-4)
    assert f"langtoks settings: {{'main': ({None if to_english else 'tgt'!r}, None)}}" in log
    assert log.count("data actor: {") == learned
    assert f"'data_actor_multilin': {sampling == 'multidds_s'}" in log


def test_published_sampling() -> None:
    """Of the authors' job scripts."""
    chosen = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in (TED.parent / "sampling").iterdir()}
    actor = {"data_actor": "base", "data_actor_lr": 1e-4, "data_actor_optim_step": 200, "utility_type": "ave"}
    start = {"datasize_t": 1, "pretrain_data_actor": True, "pretrain_type": "datasize"}
    assert chosen == {
        "proportional": {"datasize_t": 1},
        "temperature": {"datasize_t": 5},
        "uniform": {"dataset_type": "multi", "datasize_t": None},
        "multidds": {**start, **actor, "update_language_sampling": 1000},
        "multidds_s": {**start, **actor, "update_language_sampling": 1000, "data_actor_multilin": True},
    }


@pytest.mark.parametrize("path", ALL, ids=name)
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
