"""A recipe from a file of pairs to scored translations, with the stock programs it runs."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fairseq_knn.cli.main import main
from fairseq_knn.recipe import programs
from tests import cli, warm

SOURCE = ["the", "cat", "dog", "sees", "eats", "a", "small", "big", "house", "red", "blue", "tree", "runs", "to"]
TARGET = [f"{word}e" for word in SOURCE]
TINY = """\
# A tiny model
pairs:
  file: {folder}/pairs.tsv
  directory: {folder}/eng-fra
  valid: 8
  test: 9
tokenizer: {{vocab_size: 45}}
train_data: {{batch_size: 8, num_workers: 0}}
model: {{dim: 16, layers: 1, heads: 2}}
schedule: {{warmup_updates: 2}}
training: {{max_update: 4, validate_every: 2, log_every: 2}}
device: {{kind: cpu}}
"""
PAGE = (cli.ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")

Recipe = Callable[..., int]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of 60 pairs, word by word translations of each other."""
    folder = tmp_path_factory.mktemp("recipe")
    draw = random.Random(0)
    rows = [[draw.randrange(len(SOURCE)) for _ in range(draw.randrange(3, 9))] for _ in range(60)]
    text = "".join(f"{' '.join(SOURCE[i] for i in row)}\t{' '.join(TARGET[i] for i in row)}\tCC BY\n" for row in rows)
    (folder / "pairs.tsv").write_text(text)
    (folder / "tiny.yaml").write_text(TINY.format(folder=folder))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("programs")
    with warm.programs(folder):
        yield folder


@pytest.fixture
def recipe(stock: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """``fairseq-knn recipe`` in this process, its children as forks."""
    monkeypatch.setattr(programs, "program", lambda name: str(stock / name))
    return lambda *arguments: main(["recipe", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tiny: Path, stock: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "program", lambda name: str(stock / name))
        assert main(["recipe", "train", str(tiny)]) == 0
    return tiny.parent / "eng-fra" / "model"


def last(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(directory / "checkpoint_last.pt", weights_only=True)
    return state


def assert_same_training(one: Path, other: Path) -> None:
    left, right = last(one), last(other)
    assert left["optimizer_history"][-1]["num_updates"] == right["optimizer_history"][-1]["num_updates"] == 4
    assert left["model"].keys() == right["model"].keys()
    for name, tensor in left["model"].items():
        assert torch.equal(tensor, right["model"][name]), name
    for moments, others in zip(
        *(state["last_optimizer_state"]["state"].values() for state in (left, right)), strict=True
    ):
        assert torch.equal(moments["exp_avg"], others["exp_avg"])


def test_help_shows_settings_without_fairseq(tiny: Path) -> None:
    script = "import sys; from fairseq_knn.cli.main import main; main(sys.argv[1:]); print('fairseq' in sys.modules)"
    arguments = ["recipe", "help", tiny, "model.dropout=0.2", "pairs.sha256=???"]
    shown = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, cwd=cli.ROOT, check=True
    ).stdout.splitlines()
    assert shown[0] == "A tiny model"
    assert "  model.dim (int) = 16 (tiny.yaml)" in shown
    assert "  model.ffn_dim (int) = 64 (default)" in shown
    assert "  model.dropout (float) = 0.2 (command line)" in shown
    assert "  pairs.sha256 (str): !!! No pairs.sha256 specified !!!" in shown
    assert shown[-1] == "False"


def test_help_of_a_step_shows_its_component(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "help", str(tiny), "optimizer", "optimizer=nag"]) == 0
    shown = capsys.readouterr().out
    assert "**optimizer** (nag, command line)" in shown
    assert "  optimizer.momentum = 0.99\n      momentum factor" in shown
    assert "adam_betas" not in shown
    assert "adadelta, adafactor, adagrad, adam," in shown
    assert "model.dim (" not in shown
    assert main(["recipe"]) == 0
    assert "fairseq-knn recipe evaluate" in capsys.readouterr().out


def test_steps_are_tried_alone(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ["pairs", "tokenizer", "train_data", "valid_data", "task", "model", "criterion", "optimizer", "schedule"]
    assert main(["recipe", "test", str(tiny), *steps, "device", "training.max_update=100"]) == 0
    shown = capsys.readouterr().out
    for step in (*steps, "device"):
        assert f"Success! {step} = " in shown
    assert "train: 43 pairs" in shown
    assert "<pad>" not in shown
    assert "43 pairs in 6 batches an epoch" in shown
    assert "8 pairs in 1 batches an epoch" in shown
    assert "TransformerModel(" in shown
    assert "learning rate at update       1: 0.001\n" in shown
    assert "learning rate at update       2: 0.002\n" in shown
    assert "learning rate at update     100: 0.000283\n" in shown  # 0.002 x sqrt(2 / 100)
    line = next(line for line in shown.splitlines() if line.startswith("  eng: "))
    assert f"and back:  {line.removeprefix('  eng: ')}" in shown

    assert main(["recipe", "test", str(tiny), "model", "model=lstm", "model.encoder_embed_dim=16"]) == 0
    assert "Success! model = LSTMModel" in capsys.readouterr().out
    assert main(["recipe", "test", str(tiny), "schedule", "schedule=tri_stage"]) == 1
    assert "schedule cannot be taken (AssertionError: please specify steps" in capsys.readouterr().err


def test_what_is_beside_the_checkpoints(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"checkpoint_best.pt", "checkpoint_last.pt", "recipe.yaml", "fairseq.yaml"} <= names
    assert {"sentencepiece.bpe.model", "dict.eng.txt", "dict.fra.txt"} <= names
    text = (trained / "recipe.yaml").read_text()
    assert text.startswith("# A tiny model\n#\n# Every setting of the training beside this file")
    assert "  ffn_dim: 64\n" in text
    assert "  sha256: null" not in text


def test_training_goes_on_and_ends(tiny: Path, trained: Path, recipe: Recipe, tmp_path: Path, capfd: Any) -> None:
    resumed = tmp_path / "resumed"
    assert recipe("train", tiny, f"training.save_dir={resumed}", "training.max_update=2") == 0
    assert recipe("train", tiny, f"training.save_dir={resumed}") == 0
    assert_same_training(trained, resumed)
    capfd.readouterr()
    assert recipe("train", tiny) == 0
    shown = capfd.readouterr()
    assert "is finished" in shown.out
    assert "running" not in shown.out
    assert recipe("train", tiny, "model.dropout=0.3") == 1
    assert "holds a training with model.dropout=0.1, and model.dropout=0.3 is asked for" in capfd.readouterr().err


def test_the_settings_beside_the_checkpoints_reproduce_it(trained: Path, recipe: Recipe, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert recipe("train", trained / "recipe.yaml", f"training.save_dir={again}") == 0
    assert_same_training(trained, again)
    for name in ("recipe.yaml", "fairseq.yaml"):
        assert (again / name).read_text() == (trained / name).read_text().replace(str(trained), str(again))


def test_evaluation(trained: Path, recipe: Recipe, capfd: Any) -> None:
    assert recipe("evaluate", trained / "recipe.yaml") == 0
    shown = capfd.readouterr().out
    scores = json.loads((trained / "evaluation.json").read_text())
    assert scores["sentences"] == 9
    assert scores["checkpoint"] == str(trained / "checkpoint_best.pt")
    assert {"beam", "lenpen"} <= set(scores)
    assert scores["bleu"]["signature"].startswith("nrefs:1|case:mixed")
    assert f"{scores['chrf']['score']:6.2f}  {scores['chrf']['signature']}" in shown

    from sacrebleu.metrics import CHRF

    translations = (trained / "test.fra").read_text().splitlines()
    references = (trained.parent / "text" / "test.fra").read_text().splitlines()
    assert len(translations) == len(references) == 9
    assert CHRF().corpus_score(translations, [references]).score == pytest.approx(scores["chrf"]["score"])

    assert recipe("evaluate", trained / "recipe.yaml", "evaluation.checkpoint=none.pt") == 1
    assert "there is no checkpoint none.pt: train first" in capfd.readouterr().err


def test_raw_text_in_and_out_wherever_it_is(trained: Path, tmp_path: Path) -> None:
    from fairseq.models.transformer import TransformerModel

    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    hub = TransformerModel.from_pretrained(str(moved), "checkpoint_best.pt")
    assert hub.encode("the cat").tolist()[-1] == hub.task.source_dictionary.eos()
    assert hub.task.source_dictionary.unk() not in hub.encode("the cat")
    (translation,) = hub.translate(["the cat sees the dog"])
    assert "▁" not in translation


def documented(command: str) -> list[str]:
    """Settings of a command on the page."""
    (found,) = re.findall(rf"^fairseq-knn recipe {command}.*$", PAGE, re.MULTILINE)
    return found.split()[3:]


def test_the_loss_and_the_hook_of_the_documentation(
    tiny: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in re.findall(r"`(my_code/\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(code, encoding="utf-8")
    assert len(list(Path("my_code").iterdir())) == 3
    loss = documented("train code.user_dir=my_code criterion=")
    hook = documented("train code.user_dir=my_code task=")
    assert recipe("train", tiny, *loss, *hook[1:], "training.save_dir=model", "training.log_every=1") == 0

    log = Path("model/hydra_train.log").read_text(encoding="utf-8")
    losses = re.findall(r"train_inner.* loss=([\d.]+), nll_loss=([\d.]+)", log)
    assert len(losses) == 4
    assert all(float(focal) < float(cross_entropy) for focal, cross_entropy in losses)
    for side in ("encoder", "decoder"):
        assert len(re.findall(rf"train_inner.*gradient_{side}=[\d.]+", log)) == 4
    state = last(Path("model"))
    assert "embed_tokens" in next(name for name in state["model"] if name.endswith("weight"))
    learned = state["last_optimizer_state"]["state"]
    assert 0 not in learned  # the embeddings, for 100 updates
    assert 1 in learned


def test_another_tokenizer_and_another_architecture(tiny: Path, recipe: Recipe, tmp_path: Path, capfd: Any) -> None:
    """Both described by flags, which fairseq's configurations and fairseq-generate do not take as they are."""
    chosen = ("tokenizer=characters", "model=lstm", "model.encoder_embed_dim=16", "training.max_update=2")
    place = (f"training.save_dir={tmp_path}/model", "evaluation.beam=1")
    assert recipe("train", tiny, *chosen, "model.encoder_layers=2", *place) == 1
    assert "model cannot be taken" in (told := capfd.readouterr().err)
    assert "Traceback" not in told
    assert not (tmp_path / "model").exists()
    for other in ("model=transformer_lm", "task=language_modeling"):
        assert recipe("train", tiny, other, *place) == 1
        assert "the configuration cannot be taken" in capfd.readouterr().err
    assert recipe("train", tiny, *chosen, "model.decoder_embed_dim=16", *place) == 0
    assert recipe("evaluate", tmp_path / "model" / "recipe.yaml") == 0
    assert len((tmp_path / "model" / "test.fra").read_text().splitlines()) == 9
