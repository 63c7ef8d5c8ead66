"""The configurations of speech translation train under the real fairseq-hydra-train, each from the ones before it."""

import subprocess
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fairseq.models.speech_to_text import S2TTransformerModel
from omegaconf import OmegaConf

from tests import cli, imitation, speech, speech_recipe, warm

FOLDER = cli.ROOT / "configs" / "imit_kd"
METHODS = sorted(path.stem for path in (FOLDER / "method").iterdir())
CORPORA = sorted(path.stem for path in (FOLDER / "corpus").iterdir())
DICTIONARIES = (("src", "dict.src.txt"), ("tgt", "dict.txt"))
CASCADE_STUDENT = "cascade_student"
TINY = (*speech_recipe.TINY, "optimization.max_update=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, cli.Run]]:
    """ASR models by corpus, then students by method: where each was trained, and how that ended."""
    folder = tmp_path_factory.mktemp("imit_kd")
    corpus = speech_recipe.write_corpus(folder / "corpus")
    for kind in ("train", "dev"):  # as the recipe for CoVoST 2 calls them
        (corpus.data / f"{kind}_asr_en.tsv").write_bytes((corpus.data / f"{kind}_asr.tsv").read_bytes())
    (corpus.data / "config_asr_en.yaml").write_bytes((corpus.data / "config_asr.yaml").read_bytes())
    world = speech.write(folder / "data", {"train": 24, "dev": 6})
    text = imitation.write_text(folder / "text", world)
    expert = imitation.train_expert(folder / "expert", text, updates=1)
    runs = {}

    def train(program: Path, config: str, name: str, settings: Sequence[str]) -> None:
        common = [f"common.user_dir={cli.PACKAGE}", f"checkpoint.save_dir=checkpoints/{name}"]
        common += [option for option in TINY if name != CASCADE_STUDENT or "conv" not in option]
        command = [program, "--config-dir", FOLDER, "--config-name", config, *common, *settings]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        runs[name] = folder / "checkpoints" / name, cli.Run(done.returncode, done.stdout, done.stderr)

    with warm.programs(folder / "programs"):
        program = folder / "programs" / "fairseq-hydra-train"
        for name in CORPORA:
            train(program, "asr", name, [f"corpus={name}", f"task.data={corpus.data}"])
        warm_start = f"model.load_pretrained_encoder_from=checkpoints/{CORPORA[0]}/checkpoint_best.pt"
        source, target = (f"criterion.expert_vocab_{side}={world.data / name}" for side, name in DICTIONARIES)
        experts = {
            "nll": [],
            "imit_kd_ast": ["criterion.expert=checkpoints/nll/checkpoint_best.pt", target],
        }
        for method in sorted(METHODS, key="nll".__ne__):  # the expert for speech is first
            named = experts.get(method, [f"criterion.expert={expert}", source, target])
            train(program, "student", method, [f"method={method}", f"task.data={world.data}", warm_start, *named])
        (world.data / "text.yaml").write_text("vocab_filename: dict.txt\nsrc_vocab_filename: dict.src.txt\n")
        for split in ("train", "dev"):
            heard = ("asr_text", *(utterance.source for utterance in world.utterances[split]))
            lines = zip((world.data / f"{split}.tsv").read_text().splitlines(), heard, strict=True)
            (world.data / f"{split}_cascade.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
        settings = [
            f"task.data={world.data}",
            "task.config_yaml=text.yaml",
            f"criterion.expert={expert}",
            source,
            target,
        ]
        train(program, CASCADE_STUDENT, CASCADE_STUDENT, settings)
    assert [entry.name for entry in folder.iterdir() if entry.suffix == ".log"] == []  # nothing is left anywhere else
    return runs


@pytest.mark.parametrize("name", [*CORPORA, *METHODS, CASCADE_STUDENT])
def test_two_updates(name: str, trained: dict[str, tuple[Path, cli.Run]]) -> None:
    directory, run = trained[name]
    assert run.status == 0, run.log[-2000:]
    assert (directory / "checkpoint_best.pt").exists()
    log = (directory / "hydra_train.log").read_text()
    assert "num_updates 2" in log
    assert ("loaded pretrained encoder from: checkpoints/" in log) == (name in METHODS)
    assert ("kd_loss" in log) == (name not in (*CORPORA, "nll"))


def test_published_settings(trained: dict[str, tuple[Path, cli.Run]]) -> None:
    """Of the README of imitkd_ast, and of fairseq's recipes."""

    def settings(name: str) -> Any:
        return OmegaConf.load(trained[name][0] / ".hydra" / "config.yaml")

    for method in METHODS:
        config = settings(method)
        assert config.model._name == "s2t_transformer_s"
        assert config.model.encoder_freezing_updates == 1000
        assert (config.optimizer._name, config.optimization.lr, config.optimization.clip_norm) == ("adam", [0.002], 10)
        assert (config.lr_scheduler._name, config.lr_scheduler.warmup_updates) == ("inverse_sqrt", 10000)
        assert (config.common.seed, config.checkpoint.patience) == (1, 10)
        assert config.criterion._name == {"nll": "label_smoothed_cross_entropy"}.get(method, method)
        assert config.criterion.report_accuracy
    student = OmegaConf.load(FOLDER / "student.yaml")
    assert (student.optimization.max_update, student.optimization.update_freq) == (30000, [8])
    assert (student.dataset.max_tokens, student.dataset.num_workers) == (50000, 8)
    found = {}
    for corpus in CORPORA:
        config, file = settings(corpus), OmegaConf.load(FOLDER / "corpus" / f"{corpus}.yaml")
        limits = (file.dataset.max_tokens, file.optimization.max_update)
        found[corpus] = (*config.optimization.lr, config.model.dropout, *limits, config.criterion.label_smoothing)
    assert found == {
        "mustc_en_de": (0.001, 0.1, 40000, 100000, 0.1),
        "covost2_en_de": (0.002, 0.15, 50000, 60000, 0.1),
    }


def test_the_model_knows_its_settings() -> None:
    """What stands under ``model:`` of a model without a dataclass, nobody checks."""
    parser = ArgumentParser()
    S2TTransformerModel.add_args(parser)
    known = {action.dest for action in parser._actions} | {"_name", "max_source_positions", "max_target_positions"}
    for path in {*FOLDER.rglob("*.yaml")} - {FOLDER / f"{CASCADE_STUDENT}.yaml"}:
        assert set(OmegaConf.load(path).get("model", {})) <= known, path.name


def test_methods_ask_for_their_expert() -> None:
    for method in METHODS:
        config = OmegaConf.load(FOLDER / "method" / f"{method}.yaml")
        asked = {key for key, value in OmegaConf.to_container(config).items() if str(value).startswith("${???")}
        texts = {"expert", "expert_vocab_src", "expert_vocab_tgt"}
        assert asked == {"nll": set(), "imit_kd_ast": texts - {"expert_vocab_src"}}.get(method, texts)
